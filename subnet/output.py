"""Output of a process for the person who runs it.

It neither fails nor waits, as requests must be served whether or not anybody reads it: the disk may be full, the
terminal closed, and the reader of a pipe may have exited, or have stopped reading, as it happens to containers.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import TextIO

# As many bytes as a pipe that is ready takes at once.
_SLICE = select.PIPE_BUF
# Bytes that wait for a reader. Further lines are lost.
_MAX_BACKLOG = 1 << 20
# Seconds that the exit waits for the reader.
_EXIT_TIMEOUT = 1.0


def print_line(line: str) -> None:
    """Write a line to standard output, if that is possible."""
    write(sys.stdout, f"{line}\n")


def write(stream: TextIO | None, text: str) -> None:
    """Write lines to a standard stream, if that is possible. None: it was closed before the process began."""
    with suppress(OSError, ValueError, AttributeError, RuntimeError):
        # The buffers of the stream are not used: what cannot be written would stay there, and let the exit fail.
        output_of(stream.fileno()).write(text.encode(errors="backslashreplace"))  # type: ignore[union-attr]


class LogHandler(logging.Handler):
    """Writes log lines to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            write(sys.stderr, f"{text}\n")


class Output:
    """File that is written to at once if it is ready, and otherwise by a thread.

    `max_backlog` bytes may wait for that. What exceeds it is lost, and the number of lost lines is written later.
    """

    def __init__(self, descriptor: int, max_backlog: int = _MAX_BACKLOG) -> None:
        self._descriptor = descriptor
        self._max_backlog = max_backlog
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._changed = threading.Condition()
        self._backlog: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        """Write whole lines. Raises OSError if that is impossible, or RuntimeError if a thread cannot be started."""
        with self._changed:
            rest = data if self._backlog else self._write_now(data)
            if not rest:
                return
            if self._size + len(rest) > self._max_backlog:
                self._lost += rest.count(b"\n")
                return
            self._backlog.append(rest)
            self._size += len(rest)
            if self._thread is None:
                thread = threading.Thread(target=self._write_backlog, name="output", daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Return whether everything was written within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._backlog, timeout)

    def _write_now(self, data: bytes) -> bytes:
        """Write as much as is possible without waiting, and return the rest."""
        while data and self._poll.poll(0):
            try:
                data = data[os.write(self._descriptor, _slice(data)) :]
            except BlockingIOError:
                # Another process with the same pipe was faster.
                break
        return data

    def _write_backlog(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._backlog)
                data = self._backlog[0]
            with suppress(OSError):
                while data:
                    self._poll.poll()
                    data = self._write_now(data)
            with self._changed:
                self._size -= len(self._backlog.popleft())
                if self._lost and not self._backlog:
                    self._backlog.append(b"%d lines of output were lost: nobody read them in time\n" % self._lost)
                    self._size += len(self._backlog[0])
                    self._lost = 0
                self._changed.notify_all()


def _slice(data: bytes) -> bytes:
    """Return the first lines, so that those of processes with the same pipe stay whole."""
    if len(data) <= _SLICE:
        return data
    return data[: data.rfind(b"\n", 0, _SLICE) + 1] or data[:_SLICE]


@lru_cache(maxsize=2)
def output_of(descriptor: int) -> Output:
    """Return the output to a file descriptor, which the process never closes."""
    output = Output(descriptor)
    atexit.register(output.wait, _EXIT_TIMEOUT)
    return output
