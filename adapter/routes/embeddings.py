"""POST /v1/embeddings"""

from __future__ import annotations

import msgspec

from adapter.aside import LARGE, aside
from adapter.embedding import embed
from adapter.http.request import Request
from adapter.http.response import Response
from adapter.routes.answers import read
from adapter.schema.reading import read_embedding

# Vectors that take so long to write down that it is done aside.
_MANY = 64


async def embeddings(request: Request) -> Response:
    parts = request.parts
    wanted, headers, body = await read(request, read_embedding)
    answer = await embed(wanted, parts.models, parts.sessions, size=len(body))
    body = await aside(len(answer.data) * LARGE // _MANY, msgspec.json.encode, answer)
    return Response(body, headers=headers)
