"""Output of a process for the person who runs it. It never fails: requests are served whether or not anybody reads it.

Nothing is buffered. What a full disk refuses would stay in a buffer, and let the process exit with an error.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TextIO

# Control characters, of which terminals obey some, and what some viewers take for the end of a line.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_IN_TRACEBACKS = {code: text for code, text in _CONTROL.items() if code not in (ord("\n"), ord("\t"))}


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


class LineFormatter(logging.Formatter):
    """Formatter that escapes control characters, so that a message cannot forge lines or control a terminal.

    Tracebacks, which follow a message, keep their lines.
    """

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        text = super().formatMessage(record)
        return text if text.isprintable() else text.translate(_CONTROL)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if text.isprintable() else text.translate(_IN_TRACEBACKS)
