"""How the output of a generation is shown to its client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from adapter.tools import ModelFormat


class OutputOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`logprobs` None: none; k: those of each token and of the k likeliest. `special`: control tokens are shown, too.

    `kind` tells calls, of `tools` (the schemas of their arguments by name), and reasoning apart from content, None:
    nothing does; `opened` says that the answer begins inside reasoning. `echo` is shown before each answer.
    """

    stops: tuple[str, ...] = ()
    include_stop: bool = False
    logprobs: int | None = None
    token_ids: bool = False
    special: bool = False
    kind: ModelFormat | None = None
    tools: Mapping[str, Mapping[str, Any] | None] = {}
    opened: bool = False
    echo: str = ""
