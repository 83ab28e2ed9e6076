"""POST /v1/embeddings"""

from __future__ import annotations

import msgspec

from adapter.api.body import read
from adapter.api.embeddings.embed import embed
from adapter.api.readers import read_embedding
from adapter.api.request import Request
from adapter.offload import LARGE, aside
from adapter.server.responses import Response

# Vectors that take so long to write down that it is done aside.
_MANY = 64


async def embeddings(request: Request) -> Response:
    parts = request.parts
    wanted, headers, body = await read(request, read_embedding)
    answer = await embed(wanted, parts.models, parts.sessions, size=len(body))
    body = await aside(len(answer.data) * LARGE // _MANY, msgspec.json.encode, answer)
    return Response(body, headers=headers)
