"""POST /v1/embeddings"""

from __future__ import annotations

from adapter.embedding import embed
from adapter.request import Request
from adapter.response import Response
from adapter.routes.answers import json_answer, read
from adapter.schema.reading import read_embedding


async def embeddings(request: Request) -> Response:
    parts = request.parts
    wanted, headers, size = await read(request, read_embedding)
    answer = await embed(wanted, parts.models, parts.sessions, size=size)
    return json_answer(answer, headers=headers)
