"""`adapter up` with real processes: a killed node, a port in use, and a clean shutdown."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest
from openai import OpenAI

from tests.faults.programs import gateway
from tests.processes import adapter_up, until

ECHO = ("--engine", "echo", "--concurrency", "64")


def answer(url: str, *, max_tokens: int = 40, seed: int = 3) -> tuple[str, str | None]:
    client = OpenAI(base_url=url + "/v1", api_key="any", max_retries=0)
    done = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "go"}], max_tokens=max_tokens, seed=seed
    )
    return done.choices[0].message.content or "", done.choices[0].finish_reason


def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C ends the gateway and its nodes without a traceback."""
    with adapter_up(*ECHO, directory=str(tmp_path)) as running:
        nodes = running.nodes()
        assert len(nodes) == 2
    assert running.process.returncode == 0
    psutil.wait_procs(nodes, timeout=10)
    assert not any(node.is_running() for node in nodes)
    assert "Traceback" not in "".join(running.lines)


def test_killing_the_gateway_ends_its_nodes(tmp_path: Path) -> None:
    """Nodes exit when their gateway is killed."""
    with adapter_up(*ECHO, directory=str(tmp_path)) as running:
        nodes = running.nodes()
        running.process.kill()
        _, alive = psutil.wait_procs(nodes, timeout=10)
    assert not alive


def test_a_node_dies_in_the_middle(tmp_path: Path) -> None:
    """A node killed during a streamed answer is restarted, and the client gets the same answer as without the kill."""
    with adapter_up(*ECHO, directory=str(tmp_path)) as running:
        expected = answer(running.url, max_tokens=60)
        client = OpenAI(base_url=running.url + "/v1", api_key="any", max_retries=0)
        stream = client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "go"}],
            max_tokens=60,
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
        )
        text, reason, usage, killed = "", None, None, None
        for number, chunk in enumerate(stream):
            if number == 10:
                killed = busy_node(running.url)
                psutil.Process(killed).send_signal(signal.SIGKILL)
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
        assert (text, reason) == expected
        assert usage is not None
        assert usage.completion_tokens == 60
        until(lambda: len(processes(running.url) - {killed}) == 2)
    assert any("restarting it" in line for line in running.lines)


def busy_node(url: str) -> int:
    """Return the process id of the node that runs a request."""
    nodes = httpx.get(url + "/nodes").json()["nodes"]
    return next(int(node["process"]) for node in nodes if node["requests"] > 0)


def processes(url: str) -> set[int]:
    """Return the process ids of the healthy nodes."""
    return {node["process"] for node in httpx.get(url + "/nodes").json()["nodes"] if node["fault"] is None}


def test_a_port_in_use(tmp_path: Path) -> None:
    """A port in use is reported in one line, before any node is started."""
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        output = run("up", *ECHO, "--port", str(port), directory=tmp_path)
    assert output == (
        f"adapter: cannot listen on 127.0.0.1:{port}: Address already in use; choose another port with --port"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["up", "--model", "nowhere.gguf"], "nowhere.gguf"),
        (["up", "--port", "many"], "adapter: --port: expected an integer from 0 to 65535, got 'many'"),
        (["serve"], "adapter: no nodes configured"),
        (["serve", "--node", "gpu-1:8000"], "adapter: --node[0]: 'gpu-1:8000': expected an address such as http://"),
        (
            ["serve", "--node", "http://a", "--alias", "a=b,b=a"],
            "adapter: aliases form a cycle: ",
        ),
        (["up", "--config", "nowhere.toml"], "nowhere.toml"),
        (["up", "--local-nodes", "1", "--tokenizer", "nowhere.json"], "nowhere.json is not a valid tokenizer.json"),
    ],
)
def test_a_wrong_setting(arguments: list[str], line: str, tmp_path: Path) -> None:
    """An invalid setting is reported in one line that names it."""
    output = run(*arguments, directory=tmp_path)
    assert line in output
    assert "Traceback" not in output


def test_a_missing_api_key(tmp_path: Path) -> None:
    """A missing API key of a node is reported before anything is started."""
    (tmp_path / "adapter.toml").write_text('[[nodes]]\nurl = "http://a"\napi_key_env = "NO_SUCH_KEY"\n')
    assert (
        run("serve", directory=tmp_path)
        == "adapter: http://a: environment variable NO_SUCH_KEY (api_key_env) is not set"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_detected_servers(workers: int, tmp_path: Path) -> None:
    """A detected server is printed once, with several workers too, and its models are in the table."""
    with openai_server() as url:
        line = f"{url}: OpenAI-compatible server, serves small, large, chat lane: it does not accept token ids\n"
        flags = ("--local-nodes", "1", "--workers", str(workers), "--node", url)
        with adapter_up(*ECHO, *flags, directory=str(tmp_path)) as running:
            until(lambda: len(processes(running.url)) == 2)
            table = httpx.get(running.url + "/nodes").json()["nodes"]
            assert {row["lane"]: row["models"] for row in table} == {"token": ["echo"], "chat": ["small", "large"]}
            until(lambda: line in running.lines)
    assert running.lines.count(line) == 1


@contextmanager
def openai_server() -> Iterator[str]:
    """Run a server with OpenAI's API that only lists two models."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = [{"id": name, "object": "model", "owned_by": "me"} for name in ("small", "large")]
            body = json.dumps({"object": "list", "data": models}).encode() if self.path == "/v1/models" else b"{}"
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def run(*arguments: str, directory: Path) -> str:
    """Run a command that must fail, and return the last line of its standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "adapter.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env={"PYTHONPATH": str(Path.cwd()), "PATH": ""},
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_sigterm_during_an_answer(tmp_path: Path) -> None:
    """SIGTERM during an answer: /readyz returns 503, the answer is completed, and then the gateway exits."""
    with adapter_up(*ECHO, directory=str(tmp_path)) as running:
        expected = answer(running.url)
        client = OpenAI(base_url=running.url + "/v1", api_key="any", max_retries=0)
        stream = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "go"}], max_tokens=40, seed=3, stream=True
        )
        text, reason = "", None
        for number, chunk in enumerate(stream):
            if number == 5:
                running.process.send_signal(signal.SIGTERM)
                until(lambda: httpx.get(running.url + "/readyz").status_code == 503)
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or reason
        assert (text, reason) == expected
        assert running.process.wait(20) == 0


def test_the_banner_with_api_keys(tmp_path: Path) -> None:
    """The printed curl command has a variable for the API key, and the key itself is never printed."""
    with adapter_up(*ECHO, "--local-nodes", "1", "--api-key", "sk-of-a-client", directory=str(tmp_path)) as running:
        until(lambda: any("curl" in line for line in running.lines))
    output = "".join(running.lines)
    assert f"(base_url: {running.url}/v1, api_key: one of api_keys)" in output
    assert 'completions -H "authorization: Bearer $KEY"' in output
    assert "sk-of-a-client" not in output


def test_no_healthy_node_at_startup() -> None:
    """A gateway without a healthy node says so, and names the command that shows why, instead of a request to paste."""
    with gateway(["http://127.0.0.1:9"]) as running:
        line = f"no model yet: no node is healthy; see `adapter nodes --url {running.url}`\n"
        until(lambda: line in running.lines)
    assert "curl" not in "".join(running.lines)
