"""Panics of libraries written in Rust become errors like others."""

from __future__ import annotations

import numpy as np
import pytest
import tiktoken

from subnet.errors import InvalidRequest
from subnet.models.encoder import LocalEncoder
from subnet.node_info import TokenizerArtefact
from subnet.panics import LibraryPanic, panics_as_errors
from subnet.tensors import TokenIds

BYTES = {bytes([value]): value for value in range(256)}
# The regular expression gives up on a run of a million spaces, which tiktoken does not expect.
ENCODING = tiktoken.Encoding("bytes", pat_str=r"\S|\s+(?!\S)|\s+", mergeable_ranks=BYTES, special_tokens={})
SPACES = " " * 1_000_000


class Panicking(LocalEncoder):
    """Encoder whose library panics for a run of spaces."""

    def _encode(self, text: str) -> TokenIds:
        return np.array(ENCODING.encode_ordinary(text), np.int32)


def test_a_panic_becomes_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """A panic, a BaseException, is raised as LibraryPanic; errors, and exits of other kinds, pass unchanged."""
    with pytest.raises(LibraryPanic, match="StackOverflow"), panics_as_errors:
        ENCODING.encode_ordinary(SPACES)
    for error in (ValueError("invalid"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as caught, panics_as_errors:
            raise error
        assert caught.value is error
    assert "panicked" in capfd.readouterr().err


def test_a_text_at_which_a_tokenizer_panics(capfd: pytest.CaptureFixture[str]) -> None:
    """A text at which the tokenizer panics is an invalid request; others are encoded as before."""
    encoder = Panicking(TokenizerArtefact(pieces=list(BYTES), control=[]))
    with pytest.raises(InvalidRequest, match="cannot be tokenized"):
        encoder.encode(SPACES)
    assert encoder.encode("a b").tolist() == [97, 32, 98]
    assert "panicked" in capfd.readouterr().err
