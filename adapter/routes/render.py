"""POST /v1/chat/completions/render"""

from __future__ import annotations

from adapter.completion import Completion
from adapter.http.request import Request
from adapter.http.response import Response
from adapter.preparation import prepare
from adapter.routes.answers import json_answer, read, rules_of
from adapter.schema.reading import read_request
from adapter.schema.tokens import Rendered, RenderedGrammar


async def render(request: Request) -> Response:
    """A request that could not be answered is refused as it would be there."""
    wanted, headers, body = await read(request, read_request)
    completion = await prepare(wanted, request.parts.models, size=len(body), rules=rules_of(request.parts.settings))
    return json_answer(_rendered(completion), headers=headers)


def _rendered(completion: Completion) -> Rendered:
    model, sampling, ids = completion.model, completion.sampling, completion.prompt.tolist()
    grammar, calls, tags = sampling.grammar, model.kind.calls, model.kind.tags
    assert sampling.max_tokens is not None
    return Rendered(
        model=model.card.id,
        prompt=completion.text,
        prompt_token_ids=ids,
        count=len(ids),
        max_model_len=model.card.context_length,
        max_tokens=sampling.max_tokens,
        tool_format=None if calls is None else calls.name,
        reasoning=None if tags is None else tags.name,
        grammar=None if grammar is None else RenderedGrammar(grammar.kind, grammar.text),
    )
