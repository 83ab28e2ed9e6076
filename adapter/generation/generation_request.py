"""A request for a generation, whichever API it came by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from adapter.errors import invalid
from adapter.generation.output_options import OutputOptions
from adapter.grammar.output_format import OutputFormat
from adapter.prompt import Conversation
from adapter.tools.reading.offer import Offer
from subnet.generation import Sampling


class Media(msgspec.Struct, frozen=True):
    """A part of a message that is not text. `type` is what the client called it, `param` its place in the request."""

    modality: str
    type: str
    param: str


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to generate, in the gateway's own terms; each API translates into it, and nothing below knows an API.

    `sampling` lacks what depends on the model: the end tokens, the grammar and the longest answer that fits. `limit` is
    the number of new tokens per choice that the client set as `limit_param`, None: as many as fit. `grammar_param`
    names the parameter that a grammar comes from. `upstream_body` is the same request as the body of a chat completion,
    for servers that accept only messages.
    """

    model: str
    conversation: Conversation
    tools: Offer = Offer()
    output_format: OutputFormat | None = None
    media: tuple[Media, ...] = ()
    sampling: Sampling
    output: OutputOptions
    choices: int = 1
    limit: int | None = None
    limit_param: str = "max_completion_tokens"
    grammar_param: str = "tools"
    echo: bool = False
    chat_template: str | None = None
    key: str | None = None
    priority: int = 0
    upstream_body: Mapping[str, Any] = {}


def check_media(media: Collection[Media], supported: Collection[str]) -> None:
    """Raises BadRequest for the first part whose modality ("image", "audio", "file") is not `supported`."""
    for part in media:
        if part.modality not in supported:
            raise invalid(part.param, f"this model does not support content parts of type '{part.type}'")
