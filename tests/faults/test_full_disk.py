"""A gateway with workers, and a node, on a machine whose disk is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.faults import programs
from tests.faults.asking import Question, ask
from tests.processes import free_port, until

# No file can grow; /dev/full refuses what is written to standard output and error.
_LIMITED = ("sh", "-c", 'ulimit -f 0; exec "$@" >/dev/full 2>&1', "sh")
# Where it is permitted, the folder for temporary files and caches is on a disk of its own, which is full.
_MOUNTED = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k full "$0"; cat /dev/zero >"$0/f"; exec "$@"')


@contextmanager
def on_a_full_disk(folder: Path, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with nowhere to write to; it must exit without an error on SIGTERM."""
    can_mount = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    mounted = (*_MOUNTED, str(folder)) if can_mount else ()
    places = {name: str(folder) for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "HF_HOME")}
    environ = {**os.environ, **places, "PYTHONPATH": str(programs.ROOT)}
    command = [*mounted, *_LIMITED, sys.executable, "-m", *arguments]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_full_disk(tmp_path: Path) -> None:
    """Answers are complete, requests are counted, and no process ends."""
    url, node = f"http://127.0.0.1:{free_port()}", free_port()
    flags = ("--port", url.rpartition(":")[2], "--workers", "2", "--node", f"http://127.0.0.1:{node}")
    with (
        on_a_full_disk(tmp_path, (*programs.ECHO, "--port", str(node))),
        on_a_full_disk(tmp_path, ("adapter.cli", "serve", *flags)) as gateway,
    ):
        until(lambda: _is_ready(url), 60)
        workers = {child.pid for child in psutil.Process(gateway.pid).children()}
        answers = [ask(url, Question()) for _ in range(12)]
        assert all(answer.complete and answer.outcome == answers[0].outcome for answer in answers)
        until(lambda: _counted(url) >= 12)
        assert {child.pid for child in psutil.Process(gateway.pid).children()} == workers
        assert len(workers) == 2


def _counted(url: str) -> float:
    """Return the number of requests for answers in the metrics."""
    lines = httpx.get(url + "/metrics").text.splitlines()
    own = [line for line in lines if line.startswith('adapter_requests_total{endpoint="/v1/chat/completions"')]
    return sum(float(line.rpartition(" ")[2]) for line in own)


def test_a_log_that_nobody_reads() -> None:
    """Answers are complete though the reader of the log has stopped, and the log goes on when it does."""
    with programs.nodes(programs.ECHO) as (node,):
        flags = ("--port", "0", "--node", node.address)
        command = [sys.executable, "-m", "adapter.cli", "serve", *flags]
        environ = {**os.environ, "PYTHONPATH": str(programs.ROOT)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, start_new_session=True
        ) as process:
            try:
                assert process.stdout is not None
                line = next(line for line in process.stdout if "ready on " in line)
                url = line.partition("ready on ")[2].split()[0]
                # 300 KB of the access log, several times what a pipe holds.
                for number in range(100):
                    assert httpx.get(f"{url}/{number}-{'x' * 3000}").status_code == 404
                assert ask(url, Question()).complete
                assert process.stderr is not None
                expected = {f'/{number}-{"x" * 3000}"' for number in range(100)} | {'/v1/chat/completions"'}
                while expected:
                    line = process.stderr.readline()
                    assert line, expected
                    expected -= {path for path in expected if path in line}
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()
