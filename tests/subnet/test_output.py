"""Output to people who may not read it."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest

from subnet import threads
from subnet.output import LogHandler, Output, print_line

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


def _read(descriptor: int) -> bytes:
    """Return all that is written to a pipe until its other end is closed."""
    with open(descriptor, "rb") as file:
        return file.read()


def test_a_reader_that_has_stopped() -> None:
    """Writing does not wait for a reader; all is there when it goes on, in order."""
    reader, writer = os.pipe()
    output = Output(writer)
    lines = [b"line %d\n" % number for number in range(40_000)]
    for line in lines:
        output.write(line)
    assert not output.wait(0)
    read = threads.start("read", lambda: _read(reader))
    assert output.wait(30)
    output.write(b"last\n")
    os.close(writer)
    assert read.result(30) == b"".join([*lines, b"last\n"])


def test_a_reader_that_has_stopped_for_long() -> None:
    """What exceeds the backlog is lost, and the number of lost lines is written."""
    reader, writer = os.pipe()
    output = Output(writer, max_backlog=1000)
    for _ in range(100_000):
        output.write(b"line\n")
    read = threads.start("read", lambda: _read(reader))
    assert output.wait(30)
    os.close(writer)
    lines = read.result(30).splitlines()
    reports = [line for line in lines if line != b"line"]
    assert all(re.fullmatch(rb"\d+ lines of output were lost: nobody read them in time", one) for one in reports)
    assert reports
    assert sum(int(one.split()[0]) for one in reports) + lines.count(b"line") == 100_000
