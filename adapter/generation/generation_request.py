"""Request for a generation, independent of the API in which it was made."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from adapter.errors import invalid
from adapter.generation.output_options import OutputOptions
from adapter.grammar.output_format import OutputFormat
from adapter.prompt import Conversation
from adapter.tools.reading.offer import Offer
from subnet.generation import Sampling


class Media(msgspec.Struct, frozen=True):
    """Part of a message that is not text.

    `modality` is "image", "audio" or "file". `type` is the type in the request, and `param` the path of the part there.
    """

    modality: str
    type: str
    param: str


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request for a generation. Each API translates its requests into it, and nothing below depends on an API.

    `sampling` does not include what depends on the model: its end tokens, the grammar and the maximum number of new
    tokens that fit. `limit` is the maximum number of new tokens per choice that the client set in `limit_param`; None
    if it set none. `grammar_param` is the parameter that the grammar is built from.
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

    def continuing(self, text: str, tokens: int) -> GenerationRequest | None:
        """Return the request for the rest of an answer that begins with `text`, of `tokens` tokens.

        None if a model cannot continue it from its text: with several choices, tools, an output format or a message to
        be continued.
        """
        conversation = self.conversation
        is_plain = not (self.tools.tools or self.output_format or conversation.continue_final_message)
        if self.choices > 1 or not is_plain or conversation.messages[-1].get("role") == "assistant":
            return None
        messages = [*conversation.messages, {"role": "assistant", "content": text}]
        conversation = msgspec.structs.replace(
            conversation, messages=messages, continue_final_message=True, add_generation_prompt=None
        )
        limit = None if self.limit is None else max(1, self.limit - tokens)
        return msgspec.structs.replace(self, conversation=conversation, limit=limit)


def check_media(media: Collection[Media], supported: Collection[str]) -> None:
    """Raise BadRequest for the first part whose modality is not `supported`."""
    for part in media:
        if part.modality not in supported:
            raise invalid(part.param, f"this model does not support content parts of type '{part.type}'")
