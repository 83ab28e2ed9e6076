"""GET /v1/models and GET /v1/models/{id}"""

from __future__ import annotations

from adapter.api.common.body import json_response
from adapter.api.common.http_request import Request
from adapter.api.common.model_names import find_card, requested_model
from adapter.api.operator.model_object import model_object
from adapter.api.operator.types import ModelList
from adapter.server.responses import Response


async def show_models(request: Request) -> Response:
    """Handle GET /v1/models and GET /v1/models/{id}."""
    models, started = request.services.models, request.services.lifecycle.started
    if name := requested_model(request):
        return json_response(model_object(name, find_card(name, models), models, started))
    cards = models.cards_with_aliases()
    return json_response(ModelList(data=[model_object(name, card, models, started) for name, card in cards.items()]))
