"""Options for the output of a generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from adapter.tools import ModelFormat


class OutputOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options for the output of a generation.

    `stops` are the stop strings; `include_stop` keeps the one that ends an answer in its text. `logprobs` is the number
    of most likely tokens whose logprobs are reported besides that of each token; None for no logprobs.
    `show_control_tokens` keeps control tokens in the text. `format` separates tool calls and reasoning from content;
    None if everything is content. `tools` has the schema of the arguments of each tool, by its name.
    `starts_in_reasoning` means that the answer starts within reasoning. `echo` is output before each answer.
    """

    stops: tuple[str, ...] = ()
    include_stop: bool = False
    logprobs: int | None = None
    token_ids: bool = False
    show_control_tokens: bool = False
    format: ModelFormat | None = None
    tools: Mapping[str, Mapping[str, Any] | None] = {}
    starts_in_reasoning: bool = False
    echo: str = ""
