"""Output of a process for the person who runs it. It never fails: requests are served whether or not anybody reads it.

Nothing is buffered. What a full disk refuses would stay in a buffer, and let the process exit with an error.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TextIO


def print_line(line: str) -> None:
    """Write a line to standard output, if that is possible."""
    write(sys.stdout, f"{line}\n")


def write(stream: TextIO | None, text: str) -> None:
    """Write to a standard stream, if that is possible.

    It may be closed, as that of a terminal, or None; the disk may be full, and the reader of a pipe may have exited.
    """
    with suppress(OSError, ValueError, AttributeError):
        buffer = stream.buffer  # type: ignore[union-attr]
        raw = getattr(buffer, "raw", buffer)
        rest = memoryview(text.encode(errors="backslashreplace"))
        while rest:
            rest = rest[raw.write(rest) or len(rest) :]


class LogHandler(logging.Handler):
    """Writes log lines to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            write(sys.stderr, f"{text}\n")
