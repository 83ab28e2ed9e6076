"""Gateways and nodes that strangers can reach: what they say at the start, and when they do not start."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from adapter.cli import build_parser as adapter_parser
from adapter.config import Settings
from adapter.process import commands
from subnet.cli import build_parser as subnet_parser
from subnet.errors import SettingsError
from subnet.http.loopback import is_loopback
from subnet.http.node_spec import NodeSpec
from subnet.node.run import run
from subnet.node.settings import NodeSettings

HERE = ("127.0.0.1", "127.8.9.1", "localhost", "::1", "::ffff:127.0.0.1", "app.localhost")
BEYOND = ("0.0.0.0", "::", "192.168.1.4", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "gateway.example", "localhost.evil")
PLAIN = NodeSpec(url="http://a")
PAID: list[dict[str, Any]] = [
    {"api_key": "sk-1"},
    {"api_key_env": "KEY"},
    {"api_key_file": "/run/key"},
    {"headers": {"Authorization": "Bearer sk-1"}},
    {"headers": {"x-api-key": "sk-1"}},
]


def test_loopback() -> None:
    assert [host for host in HERE + BEYOND if is_loopback(host)] == list(HERE)


@pytest.mark.parametrize("host", BEYOND)
def test_a_gateway_without_keys(host: str) -> None:
    """It names the risk and the setting in one line; where it holds keys of others, it does not start."""
    warning = f"WARNING: everyone who can reach {host} may use this gateway, because api_keys is not set"
    assert Settings(host=host, nodes=(PLAIN,)).exposure() == warning
    for keys in PAID:
        paid = NodeSpec(url="http://paid", **keys)
        with pytest.raises(SettingsError) as caught:
            Settings(host=host, nodes=(PLAIN, paid)).exposure()
        message = str(caught.value)
        assert all(part in message for part in (host, "api_keys", "the API key of http://paid;", "--insecure"))
        assert "sk-1" not in message
        assert "\n" not in message
        assert Settings(host=host, nodes=(paid,), insecure=True).exposure() == warning
        assert Settings(host=host, nodes=(paid,), api_keys=("k",)).exposure() is None


@pytest.mark.parametrize("host", HERE)
def test_a_gateway_on_loopback(host: str) -> None:
    assert Settings(host=host, nodes=(NodeSpec(url="http://paid", api_key="sk-1"),)).exposure() is None


@pytest.mark.parametrize("host", BEYOND)
def test_a_node_without_a_secret(host: str) -> None:
    warning = f"WARNING: everyone who can reach {host} may use this node, because secret is not set"
    assert NodeSettings(host=host).exposure() == warning
    assert NodeSettings(host=host, secret="s").exposure() is None
    paid: dict[str, Any] = {"host": host, "upstream": "http://paid", "upstream_key_env": "KEY"}
    with pytest.raises(SettingsError, match="the API key of http://paid; set secret"):
        NodeSettings(**paid).exposure()
    assert NodeSettings(**paid, insecure=True).exposure() == warning
    assert NodeSettings(**paid, secret="s").exposure() is None
    assert NodeSettings(**(paid | {"host": "127.0.0.1"})).exposure() is None


async def test_it_is_said_before_anything_starts() -> None:
    """The line comes first, whatever fails later: a port that is taken, an engine without its settings."""
    lines: list[str] = []
    settings = Settings(host="203.0.113.7", port=1, nodes=(PLAIN,))
    for command in (commands.serve, commands.up):
        with pytest.raises(SettingsError, match="cannot listen on"):
            await command(settings, lines.append)
    with pytest.raises(SettingsError, match="needs --upstream"):
        await run(NodeSettings(host="203.0.113.7", engine="vllm"), lines.append)
    assert [line.partition(":")[0] for line in lines] == ["WARNING"] * 3


def start(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "KEY": "sk-very-secret"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("adapter.cli", ("serve", "--config", "gateway.toml", "--host", "0.0.0.0")),
        ("subnet.cli", ("node", "--host", "0.0.0.0", "--engine", "vllm", "--upstream", "http://paid")),
    ],
)
def test_the_commands_refuse(module: str, arguments: tuple[str, ...], tmp_path: Any) -> None:
    """As a user sees it: one line, exit status 1, no key."""
    (tmp_path / "gateway.toml").write_text('[[nodes]]\nurl = "http://paid"\napi_key_env = "KEY"\n')
    arguments = tuple(str(tmp_path / part) if part.endswith(".toml") else part for part in arguments)
    if module == "subnet.cli":
        arguments += ("--upstream-key-env", "KEY")
    done = start(module, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "to start all the same: --insecure" in done.stderr
    assert "very-secret" not in done.stderr


def test_a_switch_needs_no_value() -> None:
    """`--insecure` is enough, with or without a flag after it; a value is possible."""
    for parser, command in ((adapter_parser(), "serve"), (subnet_parser(), "node")):
        for given, value in ((["--insecure", "--port", "1"], "true"), (["--insecure", "no"], "no"), ([], None)):
            assert parser.parse_args([command, *given]).insecure == value
