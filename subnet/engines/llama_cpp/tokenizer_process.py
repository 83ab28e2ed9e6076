"""llama.cpp's tokenizer in a child process, which it may end.

Its regular expressions recurse for each character that they match, so that a long run of letters overflows the stack,
and it raises C++ exceptions for vocabularies that lack what it needs. Both end the process, but not the node.

A list of texts is answered by their token ids, null by the pieces of the vocabulary.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from subnet.child_process import ChildFailedError, ChildProcess, serve
from subnet.engines.llama_cpp.header import BINDING
from subnet.errors import InvalidRequest, SettingsError
from subnet.tensors import TokenIds

# Seconds until a process that does not answer is killed: less than a gateway waits, so that the text is refused instead
# of being tried on all nodes. And seconds for the pieces of a large vocabulary.
_TIMEOUT = 5.0
_PIECES_TIMEOUT = 60.0
# Bytes. Memory is taken as it is used: half a megabyte of text without a place to split needs 128 MB.
_STACK_SIZE = 512 * 2**20


class TokenizerProcess:
    """Tokenizer of the GGUF file at `path`. The process starts when it is first needed; `close` ends it.

    All methods block, and may be called in any thread.
    """

    version = BINDING.version

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = ChildProcess(__name__, str(path), timeout=_TIMEOUT)

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each text, without added tokens. Raises InvalidRequest if llama.cpp fails for one,
        and SettingsError if it cannot load the file.
        """
        replies = msgspec.convert(self._ask(list(texts), _TIMEOUT), list[bytes])
        return [np.frombuffer(reply, np.int32) for reply in replies]

    def pieces(self) -> list[bytes]:
        """Return the bytes of each token. Raises the errors of `tokenize`."""
        return msgspec.convert(self._ask(None, _PIECES_TIMEOUT), list[bytes])

    def close(self) -> None:
        self._process.close()

    def _ask(self, request: list[str] | None, timeout: float) -> Any:
        try:
            self._process.start()
        except SettingsError as error:
            raise SettingsError(f"llama.cpp cannot load the vocabulary of {self._path}: {error.message}") from error
        try:
            return self._process.ask(request, timeout)
        except ChildFailedError as error:
            message = "The text cannot be tokenized: the model's tokenizer failed."
            raise InvalidRequest(message, param="messages") from error


def _load() -> Callable[[list[str] | None], list[bytes]]:
    from subnet.engines.llama_cpp.native_tokenizer import NativeTokenizer

    tokenizer = NativeTokenizer(Path(sys.argv[1]))

    def answer(texts: list[str] | None) -> list[bytes]:
        if texts is None:
            return tokenizer.pieces()
        return [np.array(tokenizer.tokenize(text), np.int32).tobytes() for text in texts]

    return answer


def main() -> None:
    """Serve in the child process."""
    threading.stack_size(_STACK_SIZE)
    serve(_load)
