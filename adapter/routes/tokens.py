"""POST /tokenize and POST /detokenize"""

from __future__ import annotations

from adapter.http.request import Request
from adapter.http.response import Response
from adapter.routes.answers import json_answer, read, rules_of
from adapter.schema.reading import read_detokenize, read_tokenize
from adapter.tokens import detokenized, tokenized


async def tokenize(request: Request) -> Response:
    models, rules = request.parts.models, rules_of(request.parts.settings)
    wanted, headers, body = await read(request, read_tokenize)
    return json_answer(await tokenized(wanted, models, size=len(body), rules=rules), headers=headers)


async def detokenize(request: Request) -> Response:
    wanted, headers, body = await read(request, read_detokenize)
    return json_answer(await detokenized(wanted, request.parts.models, size=len(body)), headers=headers)
