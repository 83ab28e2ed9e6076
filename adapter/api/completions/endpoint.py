"""POST /v1/completions"""

from __future__ import annotations

from functools import partial

from adapter.api.common.body import Call, large_json_response, validate
from adapter.api.common.event_stream import StreamedAnswer
from adapter.api.common.head import Head
from adapter.api.common.inputs import has_token_ids
from adapter.api.common.pipeline import StreamingEndpoint
from adapter.api.completions.batch import CompletionBatch
from adapter.api.completions.collect import TextCollector
from adapter.api.completions.prepare_text import prepare_text
from adapter.api.completions.stream import TextChunkWriter
from adapter.api.completions.types import CompletionEnvelope
from adapter.api.completions.upstream_batch import upstream_batch
from adapter.api.completions.validation import read_completion, read_envelope
from adapter.decode.events import Event
from adapter.generation.base import Candidate
from adapter.generation.fallback import Fallback
from adapter.generation.model_registry import ModelRegistry
from adapter.server.asgi import ASGIApp
from subnet.aio import Sink


class CompletionEndpoint(StreamingEndpoint[CompletionEnvelope, CompletionBatch]):
    """Creates a text completion, streamed or not, on either lane."""

    reader = read_envelope

    def model(self, call: Call[CompletionEnvelope], models: ModelRegistry) -> str:
        return call.params.model

    def has_token_ids(self, params: CompletionEnvelope) -> bool:
        return params.has_token_ids or has_token_ids(params.prompt)

    async def prepare(self, call: Call[CompletionEnvelope], candidate: Candidate) -> CompletionBatch:
        services = call.request.services
        card = services.models.card(candidate)
        if card.lane == "chat":
            return upstream_batch(call.params, call.body, card, candidate)
        request = await validate(call, read_completion)
        batch = await prepare_text(
            request, services.models, name=card.id, size=call.size, bound=candidate.bound, limit=candidate.limit
        )
        await batch.compute_prefixes(services.sessions)
        return batch

    def is_streamed(self, params: CompletionEnvelope) -> bool:
        return bool(params.stream)

    def stream(self, call: Call[CompletionEnvelope], fallback: Fallback[CompletionBatch]) -> StreamedAnswer:
        params = call.params
        make_writer = partial(
            _writer, fallback, include_usage=params.include_usage, continuous_usage=params.continuous_usage
        )
        run = partial(fallback.run, call.request.services.sessions)
        return StreamedAnswer(run, make_writer, call.headers_for(fallback.work))

    async def respond(self, call: Call[CompletionEnvelope], fallback: Fallback[CompletionBatch]) -> ASGIApp:
        sessions, params = call.request.services.sessions, call.params
        collectors: list[TextCollector] = []

        def begin() -> Sink[Event]:
            collectors.append(self._collector(params, fallback.work))
            return collectors[-1].receive

        await fallback.run_buffered(sessions, begin)
        collector = collectors[-1]
        return await large_json_response(collector.build, collector.size, headers=call.headers_for(fallback.work))

    def _collector(self, params: CompletionEnvelope, batch: CompletionBatch) -> TextCollector:
        return TextCollector(
            _head(batch),
            batch.prefixes,
            choices=batch.choices,
            n=params.n or 1,
            logprobs=params.logprobs is not None,
        )


def _writer(
    fallback: Fallback[CompletionBatch], write: Sink[bytes], *, include_usage: bool, continuous_usage: bool
) -> TextChunkWriter:
    batch = fallback.work
    return TextChunkWriter(
        _head(batch),
        batch.prefixes,
        write,
        choices=batch.choices,
        include_usage=include_usage,
        usage=(lambda: fallback.usage) if continuous_usage else None,
    )


def _head(batch: CompletionBatch) -> Head:
    return Head.new(batch.card.id, batch.fingerprint, "cmpl-")
