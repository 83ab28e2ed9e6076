"""Format of log lines: a message is one line, whatever a server or a node put into it."""

from __future__ import annotations

import logging

from subnet.errors import printable


class LineFormatter(logging.Formatter):
    """Formatter that escapes control characters, so that a message cannot forge lines or control a terminal.

    Tracebacks, which follow a message, keep their lines.
    """

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record), None)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if text.isprintable() else "\n".join(printable(line, None) for line in text.split("\n"))
