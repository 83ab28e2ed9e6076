"""Encoder in a child process, for tokenizers that would hold the GIL of this one for long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from subnet.child_process import ChildFailedError, ChildProcess, read_data, serve
from subnet.errors import InvalidRequest, NodeError, SettingsError, WireError
from subnet.models.encoder import Encoder, join
from subnet.models.encoders import load_encoder
from subnet.node_info import TokenizerArtefact
from subnet.tensors import TokenIds

# Seconds, for the longest text of a request.
_TIMEOUT = 60.0


class ProcessEncoder(Encoder):
    """Encoder of an artefact, in a child process that lives as long as this object.

    A text may take `timeout` seconds. A process that has ended is started again for the next text. Raises SettingsError
    for an invalid artefact. `encode` raises NodeError if the process cannot be started again.
    """

    waits = True

    def __init__(self, artefact: TokenizerArtefact, timeout: float = _TIMEOUT) -> None:
        self._process = ChildProcess(__name__, timeout=timeout, data=msgspec.msgpack.encode(artefact))
        self._process.start()

    def encode(self, text: str) -> TokenIds:
        return self.encode_all([text])[0] if text else join([])

    def encode_all(self, texts: Sequence[str]) -> list[TokenIds]:
        try:
            reply = self._process.ask(list(texts))
        except SettingsError as error:
            raise NodeError(f"the tokenizer's process failed: {error.message}") from error
        except ChildFailedError as error:
            message = "The text cannot be tokenized: the model's tokenizer failed."
            raise InvalidRequest(message, param="messages") from error
        if isinstance(reply, str):
            raise InvalidRequest(reply, param="messages")
        return [np.frombuffer(ids, np.int32) for ids in msgspec.convert(reply, list[bytes])]


def _load() -> Callable[[list[str]], Any]:
    try:
        encoder = load_encoder(TokenizerArtefact.from_bytes(read_data()))
    except WireError as error:
        raise SettingsError(error.message) from error

    def answer(texts: list[str]) -> list[bytes] | str:
        try:
            return [ids.tobytes() for ids in encoder.encode_all(texts)]
        except InvalidRequest as error:
            return error.message

    return answer


def main() -> None:
    """Serve in the child process."""
    serve(_load)
