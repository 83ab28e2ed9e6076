"""Child process that answers requests, for work that could end this process, or hold its GIL for long.

The process reads requests from standard input and writes replies to standard output, as MessagePack after its length.
Before the first request it writes null, or the error with which it could not start.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec

from subnet.errors import SettingsError
from subnet.signals import leave_signals_to_parent

# Seconds.
_START_TIMEOUT = 120.0
_LENGTH = struct.Struct("<I")


class ChildFailedError(Exception):
    """The process has ended, or it was killed because it took too long."""


class ChildProcess:
    """Process that runs the function `main` of a `module` with `arguments`. It starts when it is first needed.

    `timeout` is the time that a request may take, in seconds. If there is `data`, the process gets it first. All
    methods block, and may be called in any thread; requests are answered one by one.
    """

    def __init__(self, module: str, *arguments: str, timeout: float, data: bytes = b"") -> None:
        # Not with -m, as a package may import the module, too.
        self._command = [sys.executable, "-c", f"from {module} import main; main()", *arguments]
        self._timeout = timeout
        self._data = data
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes]], ChildProcess] | None = None

    def start(self) -> None:
        """Start the process. Raises SettingsError with the error that it reports, or if it fails."""
        with self._lock:
            self._started()

    def ask(self, request: Any, timeout: float | None = None) -> Any:
        """Return the reply to a request. Raises ChildFailedError, and the errors of `start`."""
        with self._lock:
            process = self._started()
            try:
                return _exchange(process, request, timeout or self._timeout)
            except (OSError, EOFError) as error:
                self._stop()
                raise ChildFailedError from error

    def close(self) -> None:
        """End the process. It ends as well when this object is deleted."""
        with self._lock:
            self._stop()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            # It ended between requests, as when memory is short, so that no request was the cause.
            self._stop()
        if self._process is None:
            process = self._spawn()
            self._process, self._finalizer = process, weakref.finalize(self, _end, process)
            try:
                problem = _exchange(process, self._data, _START_TIMEOUT) if self._data else _first_reply(process)
            except (OSError, EOFError):
                problem = "the process failed"
            if problem is not None:
                self._stop()
                raise SettingsError(problem)
        return self._process

    def _spawn(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise SettingsError(f"cannot start a process: {error.strerror}") from error

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _exchange(process: subprocess.Popen[bytes], request: Any, timeout: float) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    with _killed_after(timeout, process):
        _write(process.stdin, request)
        return _read(process.stdout)


def _first_reply(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    with _killed_after(_START_TIMEOUT, process):
        return _read(process.stdout)


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _write(stream: IO[bytes], message: Any) -> None:
    data = msgspec.msgpack.encode(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _read(stream: IO[bytes]) -> Any:
    """Return the next message. Raises EOFError."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(header)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return msgspec.msgpack.decode(data)


def read_data() -> bytes:
    """Return the data that the process gets first; to be called in the process."""
    return bytes(_read(sys.stdin.buffer))


def serve(load: Callable[[], Callable[[Any], Any]]) -> None:
    """Answer requests with the function that `load` returns, until standard input ends, as when the parent does.

    To be called in the process. A SettingsError of `load` is reported.
    """
    leave_signals_to_parent()
    thread = threading.Thread(target=_serve, args=[load])
    thread.start()
    thread.join()


def _serve(load: Callable[[], Callable[[Any], Any]]) -> None:
    try:
        answer = load()
    except SettingsError as error:
        return _write(sys.stdout.buffer, error.message)
    _write(sys.stdout.buffer, None)
    try:
        while True:
            _write(sys.stdout.buffer, answer(_read(sys.stdin.buffer)))
    except EOFError:
        return None
