"""A gateway whose name server does not answer."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import programs
from tests.faults.asking import Question, ask
from tests.faults.programs import Gateway

# More than the threads of libuv, and than those of asyncio on a small machine.
_NAMES = [f"http://node-{number}.slow.test:9" for number in range(12)]
_MOUNT = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"')
# With these, a look-up takes minutes.
_OPTIONS = "options timeout:30 attempts:5"


@contextmanager
def silent_name_server(directory: Path) -> Iterator[tuple[str, ...]]:
    """Run a name server that never answers; yield a command that runs a program with it as its only one."""
    file = directory / "resolv.conf"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("127.0.0.53", 53))
        except OSError as error:
            pytest.skip(f"a name server needs port 53: {error}")
        file.write_text(f"nameserver 127.0.0.53\n{_OPTIONS}\n")
        prefix = (*_MOUNT, str(file))
        if subprocess.run([*prefix, "true"], capture_output=True).returncode:
            pytest.skip("a resolv.conf for one process needs a mount, which is not permitted here")
        yield prefix


class _Gateway(Gateway):
    def __init__(self, prefix: tuple[str, ...], addresses: list[str]) -> None:
        super().__init__(addresses, kind=None)
        self.prefix = prefix


def test_names_that_hang(tmp_path: Path) -> None:
    """Twelve nodes whose names are not found do not disturb one with an address, nor the exit of the gateway."""
    with programs.nodes(programs.ECHO) as (node,), silent_name_server(tmp_path) as prefix:
        gateway = _Gateway(prefix, [*_NAMES, node.address])
        gateway.start()
        try:
            gateway.wait()
            answers = [ask(gateway.url, Question()) for _ in range(3)]
            assert all(answer.complete and answer.outcome == answers[0].outcome for answer in answers)
            states = {row["peer"]: row["state"] for row in gateway.table}
            assert states.pop(node.address) == "healthy"
            assert set(states.values()) == {"unreachable"}
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            assert gateway.process.wait(20) == 0
        finally:
            gateway.end()
    assert "Traceback" not in "".join(gateway.lines)
