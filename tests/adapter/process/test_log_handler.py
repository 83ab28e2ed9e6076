"""Logging of the gateway process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from adapter.process.log_handler import BatchingHandler, OneLineFormatter


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.Logger("test", logging.INFO)
    handler = BatchingHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_a_message_is_one_line(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """What a message repeats cannot add a line or control a terminal; a traceback keeps its lines."""
    logger.handlers[0].setFormatter(OneLineFormatter("%(levelname)s %(message)s"))
    logger.warning("node said: %s", "no\nINFO \x1b[2Jall is well, \u65e5\u202e")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logger.exception("failed")
    first, second, *rest = capfd.readouterr().err.splitlines()
    assert first == r"WARNING node said: no\nINFO \x1b[2Jall is well, " + "\u65e5" + r"\u202e"
    assert (second, rest[0]) == ("ERROR failed", "Traceback (most recent call last):")


async def test_lines_of_an_iteration(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines are written at the end of the event loop iteration, in order."""
    logger.info("one")
    logger.info("two")
    assert capfd.readouterr().err == ""
    await asyncio.sleep(0)
    assert capfd.readouterr().err == "INFO one\nINFO two\n"


async def test_warnings(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """A warning is written at once, after the lines before it."""
    logger.info("one")
    logger.warning("two")
    assert capfd.readouterr().err == "INFO one\nWARNING two\n"


def test_without_an_event_loop(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a running event loop each line is written at once."""
    logger.info("one")
    assert capfd.readouterr().err == "INFO one\n"


async def test_closed_standard_error(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging does not raise when standard error is closed."""
    monkeypatch.setattr("sys.stderr", None)
    logger.warning("one")


async def test_a_message_that_cannot_be_formatted(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """An error in a message is reported as logging does it, and later lines are still written."""
    logger.info("%d", "x")
    logger.warning("two")
    assert "WARNING two\n" in capfd.readouterr().err
