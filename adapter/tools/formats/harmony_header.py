"""Headers as the package openai-harmony reads them, which is what gpt-oss's makers have for it.

Slow to import, for it brings pydantic: to be imported where a model needs it.
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
        """The client's function that is called, if one is."""
        name = (self.recipient or "").removeprefix(FUNCTIONS)
        return name if name != self.recipient and is_name(name) else None

    @property
    def is_reasoning(self) -> bool:
        """Calls to tools that are none of the client's (browser, python) are reasoning, too."""
        return self.channel == "analysis" or (bool(self.recipient) and self.channel != "final")


ReadHeader: TypeAlias = Callable[[str], Header]
"""Of a header up to its `<|message|>`. One that does not begin with `<|start|>` is the assistant's. Never raises."""


def read_as_text(header: str) -> Header:
    """Takes what it finds, wherever that stands."""
    channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
    return Header(channel and channel[1], recipient and recipient[1])


logger = logging.getLogger(__name__)

N_ORDINARY = 199_998
"""The tokens of o200k_base; those after them are control tokens."""

MAX_PARSED = 256
"""Characters of a header that the package is given: it takes 60 microseconds for each token."""

_MARKS = frozenset({START, CHANNEL, CONSTRAIN, MESSAGE})
_FOLDER = "TIKTOKEN_ENCODINGS_BASE"
_LOCK = Lock()


def load(pieces: Sequence[bytes]) -> ReadHeader:
    """For a model of which token i is `pieces[i]`. Takes 50 MB, and a second, for a third of which it holds the
    interpreter's lock. Uses no network.

    The package asks for the vocabulary o200k_base, and checks the hash of the file: gpt-oss's own tokens make it. The
    headers of a model with other tokens are read as text, and so are those that the package refuses.
    """
    try:
        encoding = encoding_of(pieces)
    except (HarmonyError, OSError) as error:
        logger.warning("openai-harmony cannot be used, parsing harmony headers as plain text instead: %s", error)
        return read_as_text
    return lru_cache(256)(partial(_read, encoding))


def encoding_of(pieces: Sequence[bytes]) -> HarmonyEncoding:
    """Raises HarmonyError for tokens that are not gpt-oss's, and OSError where there is no room for a file."""
    lines = (b"%s %d\n" % (b64encode(piece), rank) for rank, piece in enumerate(pieces[:N_ORDINARY]))
    with TemporaryDirectory() as folder:
        Path(folder, "o200k_base.tiktoken").write_bytes(b"".join(lines))
        with _vocabulary_in(folder):
            return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


def _read(encoding: HarmonyEncoding, header: str) -> Header:
    if len(header) > MAX_PARSED:
        return read_as_text(header)
    parser = StreamableParser(encoding, None if header.startswith(START) else Role.ASSISTANT, strict=False)
    try:
        # Any tokens that say this will do: the package puts their texts together again.
        for token in encoding.encode(header + MESSAGE, allowed_special=_MARKS, disallowed_special=()):
            parser.process(token)
    except HarmonyError:
        return read_as_text(header)
    recipient = parser.current_recipient
    # Where only a type follows the channel, the package takes it for the recipient.
    typed = recipient is not None and recipient.startswith(CONSTRAIN)
    return Header(parser.current_channel, None if typed else recipient)


@contextmanager
def _vocabulary_in(folder: str) -> Iterator[None]:
    """The environment is the one way to tell the package, which else downloads the file."""
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
