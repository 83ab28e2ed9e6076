"""llama.cpp's tokenizer in a child process, which it may end.

Its regular expressions recurse for each character that they match, so that a long run of letters overflows the stack,
and it raises C++ exceptions for vocabularies that lack what it needs. Both end the process, but not the node.

The process reads requests from standard input and writes replies to standard output, as MessagePack after its
length: a list of texts is answered by their token ids, null by the pieces of the vocabulary. The first reply is null,
or the error of loading the file.
"""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from subnet.engines.llama_cpp.header import BINDING
from subnet.errors import InvalidRequest, SettingsError
from subnet.tensors import TokenIds

# Seconds until a process that does not answer is killed: less than a gateway waits, so that the text is refused instead
# of being tried on all nodes. And seconds for its start.
_TIMEOUT = 5.0
_START_TIMEOUT = 60.0
# Bytes. Memory is taken as it is used: half a megabyte of text without a place to split needs 128 MB.
_STACK_SIZE = 512 * 2**20
_LENGTH = struct.Struct("<I")


class TokenizerProcess:
    """Tokenizer of the GGUF file at `path`. The process starts when it is first needed; `close` ends it.

    All methods block, and may be called in any thread.
    """

    version = BINDING.version

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each text, without added tokens. Raises InvalidRequest if llama.cpp fails for one,
        and SettingsError if it cannot load the file.
        """
        replies = msgspec.convert(self._ask(list(texts)), list[bytes])
        return [np.frombuffer(reply, np.int32) for reply in replies]

    def pieces(self) -> list[bytes]:
        """Return the bytes of each token. Raises the errors of `tokenize`."""
        return msgspec.convert(self._ask(None), list[bytes])

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, request: list[str] | None) -> Any:
        with self._lock:
            process = self._started()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                with _killed_after(_TIMEOUT if request is not None else _START_TIMEOUT, process):
                    _write(process.stdin, request)
                    return _read(process.stdout)
            except (OSError, EOFError) as error:
                self._stop()
                message = "The text cannot be tokenized: the model's tokenizer failed."
                raise InvalidRequest(message, param="messages") from error

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # Not with -m, as the package imports this module, too.
            command = [sys.executable, "-c", f"from {__name__} import main; main()", str(self._path)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert self._process.stdout is not None
            try:
                with _killed_after(_START_TIMEOUT, self._process):
                    problem = _read(self._process.stdout)
            except (OSError, EOFError):
                problem = f"llama.cpp cannot load the vocabulary of {self._path}"
            if problem is not None:
                self._stop()
                raise SettingsError(problem)
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


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


def _serve(path: Path) -> None:
    from subnet.engines.llama_cpp.native_tokenizer import NativeTokenizer

    try:
        tokenizer = NativeTokenizer(path)
    except SettingsError as error:
        return _write(sys.stdout.buffer, error.message)
    _write(sys.stdout.buffer, None)
    try:
        while True:
            texts = _read(sys.stdin.buffer)
            _write(sys.stdout.buffer, tokenizer.pieces() if texts is None else list(map(_tokens(tokenizer), texts)))
    except EOFError:
        return None


def _tokens(tokenizer: Any) -> Any:
    return lambda text: np.array(tokenizer.tokenize(text), np.int32).tobytes()


def main() -> None:
    """Serve until standard input ends, as it does when the node does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.stack_size(_STACK_SIZE)
    thread = threading.Thread(target=_serve, args=[Path(sys.argv[1])])
    thread.start()
    thread.join()
