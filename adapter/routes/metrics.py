"""GET /metrics"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST

from adapter.http.request import Request
from adapter.http.response import Response


async def show_metrics(request: Request) -> Response:
    return Response(request.parts.metrics.text(), media_type=CONTENT_TYPE_LATEST)
