"""POST /tokenize and POST /detokenize"""

from __future__ import annotations

from adapter.api.body import json_answer, read, rules_of
from adapter.api.readers import read_detokenize, read_tokenize
from adapter.api.request import Request
from adapter.api.tokenize.tokenize import detokenized, tokenized
from adapter.server.responses import Response


async def tokenize(request: Request) -> Response:
    models, rules = request.parts.models, rules_of(request.parts.settings)
    wanted, headers, body = await read(request, read_tokenize)
    return json_answer(await tokenized(wanted, models, size=len(body), rules=rules), headers=headers)


async def detokenize(request: Request) -> Response:
    wanted, headers, body = await read(request, read_detokenize)
    return json_answer(await detokenized(wanted, request.parts.models, size=len(body)), headers=headers)
