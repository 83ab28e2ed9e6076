"""Output to people who may not read it."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from subnet.output import LogHandler, print_line, write

_PROGRAM = """\
import logging
from subnet.output import LogHandler, print_line
logging.basicConfig(handlers=[LogHandler()])
for number in range(3000):
    print_line("line %d" % number)
    logging.warning("line %d", number)
"""


@pytest.mark.parametrize("target", [">/dev/full 2>&1", ">&- 2>&-", "| true", "2>&1 | true"])
def test_a_program_that_cannot_write(target: str) -> None:
    """A full disk, closed streams, and a reader that has exited change nothing, not even the exit code."""
    command = f"set -o pipefail; \"$0\" -c '{_PROGRAM}' {target}"
    done = subprocess.run(["bash", "-c", command, sys.executable], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """Lines are written at once; what the encoding lacks is written as an escape."""
    print_line("one é \ud800")
    handler = LogHandler()
    handler.handle(logging.LogRecord("name", logging.INFO, "", 0, "two", None, None))
    assert capfd.readouterr() == ("one é \\ud800\n", "two\n")


def test_a_stream_that_takes_a_part() -> None:
    """What a stream did not take is written again."""

    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            part = bytes(memoryview(data))[:3]  # type: ignore[arg-type]
            self.data += part
            return len(part)

    raw = Slow()
    write(io.TextIOWrapper(io.BufferedWriter(raw)), "something long\n")
    assert raw.data == b"something long\n"
