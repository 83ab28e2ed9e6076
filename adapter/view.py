"""What a client wants to see of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class View(msgspec.Struct, frozen=True, kw_only=True):
    """`logprobs` None: none; k: those of each token and of the k likeliest. `special`: control tokens are shown, too.

    `parsed`: calls, of `tools` (the schemas of their arguments by name), and reasoning are told apart from content;
    `opened` says that the answer begins inside reasoning. `echo` is shown before each answer.
    """

    stops: tuple[str, ...] = ()
    include_stop: bool = False
    logprobs: int | None = None
    token_ids: bool = False
    special: bool = False
    parsed: bool = False
    tools: Mapping[str, Mapping[str, Any] | None] = {}
    opened: bool = False
    echo: str = ""
