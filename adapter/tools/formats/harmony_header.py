"""Parsing of gpt-oss's message headers, with the package openai-harmony by the model's authors.

This module is slow to import, as the package imports pydantic: import it only for a model that needs it.
"""

from __future__ import annotations

import logging
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import NamedTuple, TypeAlias

from openai_harmony import (  # type: ignore[import-untyped]
    HarmonyEncoding,
    HarmonyEncodingName,
    HarmonyError,
    Role,
    StreamableParser,
    load_harmony_encoding,
)

from adapter.tools.reading.json_call import is_name

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
FUNCTIONS = "functions."

_CHANNEL = re.compile(r"<\|channel\|>\s*([^\s<]+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")


class Header(NamedTuple):
    channel: str | None
    recipient: str | None

    @property
    def function(self) -> str | None:
        """Name of the client's function that is called, or None."""
        name = (self.recipient or "").removeprefix(FUNCTIONS)
        return name if name != self.recipient and is_name(name) else None

    @property
    def is_reasoning(self) -> bool:
        """True for reasoning, which includes calls of built-in tools (browser, python)."""
        return self.channel == "analysis" or (bool(self.recipient) and self.channel != "final")


ReadHeader: TypeAlias = Callable[[str], Header]
"""Parses a header, up to its `<|message|>`. One without `<|start|>` is the assistant's. Never raises."""


def read_as_text(header: str) -> Header:
    """Parse a header with regular expressions that ignore the order of its fields."""
    channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
    return Header(channel and channel[1], recipient and recipient[1])


logger = logging.getLogger(__name__)

N_ORDINARY = 199_998
"""Number of tokens in o200k_base. Later ids are control tokens."""

MAX_HEADER = 256
"""Maximum length, in characters, of headers parsed by the package, which takes 60 microseconds per token."""

_MARKS = frozenset({START, CHANNEL, CONSTRAIN, MESSAGE})
_FOLDER = "TIKTOKEN_ENCODINGS_BASE"
_LOCK = Lock()


def load(pieces: Sequence[bytes]) -> ReadHeader:
    """Return a parser of headers for a model whose token i has the bytes `pieces[i]`. Takes 50 MB and a second, for a
    third of which it holds the GIL. Does not use the network.

    The package needs the vocabulary o200k_base, and checks the hash of its file, which is created from gpt-oss's own
    tokens. Headers of models with other tokens, and headers that the package rejects, are parsed as text.
    """
    try:
        encoding = encoding_of(pieces)
    except (HarmonyError, OSError) as error:
        logger.warning("openai-harmony cannot be used, parsing harmony headers as plain text instead: %s", error)
        return read_as_text
    return lru_cache(256)(partial(_read, encoding))


def encoding_of(pieces: Sequence[bytes]) -> HarmonyEncoding:
    """Create the package's encoding. Raises HarmonyError if the tokens are not those of gpt-oss, and OSError if the
    file cannot be written.
    """
    lines = (b"%s %d\n" % (b64encode(piece), rank) for rank, piece in enumerate(pieces[:N_ORDINARY]))
    with TemporaryDirectory() as folder:
        Path(folder, "o200k_base.tiktoken").write_bytes(b"".join(lines))
        with _vocabulary_in(folder):
            return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


def _read(encoding: HarmonyEncoding, header: str) -> Header:
    if len(header) > MAX_HEADER:
        return read_as_text(header)
    parser = StreamableParser(encoding, None if header.startswith(START) else Role.ASSISTANT, strict=False)
    try:
        # Any tokens with this text will do: the package joins their texts again.
        for token in encoding.encode(header + MESSAGE, allowed_special=_MARKS, disallowed_special=()):
            parser.process(token)
    except HarmonyError:
        return read_as_text(header)
    recipient = parser.current_recipient
    # If only a type follows the channel, the package reports it as the recipient.
    typed = recipient is not None and recipient.startswith(CONSTRAIN)
    return Header(parser.current_channel, None if typed else recipient)


@contextmanager
def _vocabulary_in(folder: str) -> Iterator[None]:
    """Set the folder of the package's vocabulary, which it otherwise downloads. Only the environment can set it."""
    with _LOCK:
        before = os.environ.get(_FOLDER)
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[_FOLDER]
            else:
                os.environ[_FOLDER] = before
