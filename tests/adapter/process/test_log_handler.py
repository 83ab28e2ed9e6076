"""Logging of the gateway process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from adapter.process.log_handler import BatchingHandler


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.Logger("test", logging.INFO)
    handler = BatchingHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    yield logger
    handler.close()


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
