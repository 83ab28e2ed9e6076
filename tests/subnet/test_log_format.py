"""Log lines: whatever a server or a node sends, one message is one line."""

from __future__ import annotations

import logging
import sys

import pytest

from subnet.log_format import LineFormatter


def line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    trace = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("subnet.pool", logging.WARNING, "file", 1, message, arguments, trace)
    return LineFormatter().format(record)


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        ("no luck", "no luck"),
        ("caf\u00e9 \u4f60\u597d", "caf\u00e9 \u4f60\u597d"),
        ("a\nERROR root: forged", "a\\nERROR root: forged"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\u65e5\u202egnp.exe", "\u65e5\\u202egnp.exe"),
    ],
)
def test_control_characters_are_escaped(sent: str, logged: str) -> None:
    """Line breaks and codes for terminals in a message are escaped; other characters of any script are not."""
    assert line("node %s failed", sent) == f"WARNING subnet.pool: node {logged} failed"


def test_a_traceback_keeps_its_lines() -> None:
    """A traceback after a message has several lines, in which the codes are escaped, too."""
    try:
        raise ValueError("\x1b[31mred")
    except ValueError:
        error = sys.exc_info()[1]
    lines = line("failed", error=error).splitlines()
    assert (lines[0], lines[1]) == ("WARNING subnet.pool: failed", "Traceback (most recent call last):")
    assert lines[-1] == "ValueError: \\x1b[31mred"
