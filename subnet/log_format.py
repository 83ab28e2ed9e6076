"""Format of log lines: a message is one line, whatever a server or a node put into it."""

from __future__ import annotations

import logging

# Control characters, of which terminals obey some, and what some viewers take for the end of a line.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_IN_TRACEBACKS = {code: text for code, text in _CONTROL.items() if code not in (ord("\n"), ord("\t"))}


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
