"""Signals of a process that serves requests."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
# Their default is to kill the process, which would cut off all answers. Other servers reopen logs or reload on them.
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def handle_signals(on_stop: Callable[[], None], report: Callable[[str], None]) -> Iterator[None]:
    """Call `on_stop` within the context on each SIGINT, SIGTERM and SIGQUIT, and when the process loses its terminal.

    SIGHUP for another reason, SIGUSR1 and SIGUSR2 are reported and ignored. If SIGHUP was ignored before, as `nohup`
    does, it stays so.
    """
    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Callable[[], None]] = dict.fromkeys(_STOPPING, on_stop)
    handlers |= {number: partial(_ignore, number, report) for number in _IGNORED}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = partial(_on_hangup, _has_terminal(), on_stop, report)
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def leave_signals_to_parent() -> None:
    """Ignore all these signals in a child process: those to a process group or service reach it, too, but its parent
    drains first and then ends it.
    """
    for number in (*_STOPPING, *_IGNORED, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _on_hangup(had_terminal: bool, on_stop: Callable[[], None], report: Callable[[str], None]) -> None:
    if had_terminal and not _has_terminal():
        on_stop()
    else:
        _ignore(signal.SIGHUP, report)


def _ignore(number: signal.Signals, report: Callable[[str], None]) -> None:
    report(f"ignored {number.name}: settings are read only at start")


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
