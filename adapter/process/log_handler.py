"""Logging to standard error, with one write per event loop iteration."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress

from subnet.errors import printable

# Maximum number of buffered lines, in case the event loop has stopped.
_MAX_LINES = 256


class OneLineFormatter(logging.Formatter):
    """Formatter that keeps each message in one line: what nodes and clients say must not look like a line of its own,
    nor control a terminal. Tracebacks keep their lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 the name in the library
        return printable(super().formatMessage(record), None)


class BatchingHandler(logging.Handler):
    """Writes log lines to standard error at the end of the event loop iteration, in one write.

    A busy gateway logs many requests per iteration, and a system call for each would cost more than all other work of
    logging. Warnings, errors and lines from other threads are written at once, after the buffered lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        lines = self._lines
        try:
            lines.append(self.format(record))
        except Exception:
            self.handleError(record)
            return
        if record.levelno >= logging.WARNING or len(lines) > _MAX_LINES:
            self.flush()
        elif len(lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write the buffered lines. Errors are ignored, as requests must be served even if the disk is full or standard
        error is closed.
        """
        self.acquire()
        try:
            if self._lines:
                text = "\n".join([*self._lines, ""])
                self._lines.clear()
                with suppress(OSError, ValueError, AttributeError):
                    sys.stderr.buffer.write(text.encode(errors="backslashreplace"))
                    sys.stderr.buffer.flush()
        finally:
            self.release()
