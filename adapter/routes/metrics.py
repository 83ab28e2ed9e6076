"""GET /metrics"""

from __future__ import annotations

from litestar import get
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse
from prometheus_client import CONTENT_TYPE_LATEST

from adapter.metrics import Metrics


@get("/metrics", name="metrics")
async def show_metrics(metrics: NamedDependency[Metrics]) -> ASGIResponse:
    return ASGIResponse(body=metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})
