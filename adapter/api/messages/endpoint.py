"""POST /v1/messages"""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from adapter.api.common.body import Call, json_response
from adapter.api.common.event_stream import StreamedAnswer
from adapter.api.common.head import Head
from adapter.api.conversation.body import chat_body
from adapter.api.conversation.endpoint import ConversationEndpoint
from adapter.api.conversation.translate import generation_request
from adapter.api.messages.collect import Collector
from adapter.api.messages.dialect import AnthropicDialect
from adapter.api.messages.response import StopReason
from adapter.api.messages.stream import MessageWriter
from adapter.api.messages.translate import Translated, translate
from adapter.api.messages.types import MessagesRequest
from adapter.api.messages.validation import read_messages
from adapter.decode.usage import NO_USAGE, Usage
from adapter.errors import invalid
from adapter.generation.base import Candidate, Generation
from adapter.generation.chat_lane import ChatGeneration
from adapter.generation.fallback import Fallback
from adapter.generation.generation_request import GenerationRequest
from adapter.generation.model_registry import ModelRegistry
from adapter.offload import offload_if_large
from adapter.server.asgi import ASGIApp
from subnet.aio import Sink
from subnet.node_info import ModelCard


class MessagesEndpoint(ConversationEndpoint[MessagesRequest]):
    """Creates a message, streamed or not, on either lane."""

    reader = read_messages

    def model(self, call: Call[MessagesRequest], models: ModelRegistry) -> str:
        return call.params.model

    async def generation_request(self, call: Call[MessagesRequest]) -> GenerationRequest:
        return generation_request((await _translate(call)).request, effort_is_hint=True)

    async def chat_generation(
        self, call: Call[MessagesRequest], card: ModelCard, candidate: Candidate, text: str = "", tokens: int = 0
    ) -> ChatGeneration | None:
        translated = await _translate(call)
        if text and translated.prefill is not None:
            return None
        prefix = text or translated.prefill
        body, key = _server_body(call, card, translated, prefix)
        return ChatGeneration(
            card,
            body,
            size=call.size,
            key=key,
            prefix=prefix or "",
            prefix_tokens=tokens,
            bound=candidate.bound,
            limit=candidate.limit,
        )

    def is_streamed(self, params: MessagesRequest) -> bool:
        return bool(params.stream)

    def stream(self, call: Call[MessagesRequest], fallback: Fallback[Generation]) -> StreamedAnswer:
        make_writer = partial(_writer, fallback, stops=tuple(call.params.stop_sequences or ()))
        return StreamedAnswer(
            partial(fallback.run, call.request.services.sessions), make_writer, _headers(call, fallback.work)
        )

    async def respond(self, call: Call[MessagesRequest], fallback: Fallback[Generation]) -> ASGIApp:
        collector = Collector(call.params.stop_sequences or ())
        await fallback.run_buffered(call.request.services.sessions, collector.reset)
        work = fallback.work
        message = collector.build(_head(work), _limit_reason(weakref.ref(fallback)))
        return json_response(message, headers=_headers(call, work))


async def _translate(call: Call[MessagesRequest]) -> Translated:
    """Translate a request. From then on its errors name the client's places for those of the translated one."""
    translated = await offload_if_large(call.size, translate, call.params)
    call.request.record.dialect = AnthropicDialect(translated.places)
    return translated


def _server_body(
    call: Call[MessagesRequest], card: ModelCard, translated: Translated, prefix: str | None
) -> tuple[dict[str, Any], str | None]:
    """Return the body for a server that accepts only messages, of which it continues `prefix`, and the routing key.

    Raises BadRequest if the request has a message to continue, and no server can.
    """
    body = chat_body(translated.request)
    if body.pop("continue_final_message", False) and not call.request.services.models.continues_messages(card):
        raise invalid("continue_final_message", "no server of this model can continue a message of the assistant")
    # Servers refuse what a model without reasoning does not know, and clients send an effort to every model.
    if not card.reasoning and (card.reasoning is False or not translated.has_explicit_effort):
        body.pop("reasoning_effort", None)
    key = body.pop("user", None)
    if prefix is not None and body["messages"][-1]["role"] == "assistant":
        del body["messages"][-1]
    return body, key


def _writer(fallback: Fallback[Generation], write: Sink[bytes], *, stops: tuple[str, ...]) -> MessageWriter:
    work = fallback.work
    # The work refers to the writer: another reference back to it would be a cycle.
    reference = weakref.ref(fallback)
    usage, limit_reason = partial(_usage, reference), partial(_limit_reason, reference)
    return MessageWriter(_head(work), write, usage, stops=stops, limit_reason=limit_reason)


def _usage(reference: weakref.ref[Fallback[Generation]]) -> Usage:
    fallback = reference()
    return NO_USAGE if fallback is None else fallback.usage


def _head(work: Generation) -> Head:
    return Head.new(work.card.id, work.fingerprint, "msg_")


def _limit_reason(reference: weakref.ref[Fallback[Generation]]) -> StopReason:
    """Return why an answer of the maximum length ended. On the chat lane only its end tells that it was bounded."""
    fallback = reference()
    is_bounded = fallback is not None and fallback.work.bounded_tokens is not None
    return "model_context_window_exceeded" if is_bounded else "max_tokens"


def _headers(call: Call[MessagesRequest], work: Generation) -> dict[str, str]:
    """Return the headers of an answer. What is ignored is so on both lanes, as servers get a translated request."""
    return {**call.ignored, **call.headers_for(work)}
