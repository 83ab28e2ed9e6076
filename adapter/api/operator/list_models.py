"""GET /v1/models and GET /v1/models/{id}"""

from __future__ import annotations

from adapter.api.common.body import json_response
from adapter.api.common.http_request import Request
from adapter.api.operator.model_object import model_object
from adapter.api.operator.types import ModelList
from adapter.generation.aliases import name_as_requested
from adapter.generation.model_registry import ModelRegistry
from adapter.server.responses import Response
from subnet.node_info import ModelCard

PATH = "/v1/models"


async def show_models(request: Request) -> Response:
    """Handle GET /v1/models and GET /v1/models/{id}; ids may contain slashes."""
    models, name = request.services.models, request.target.path.removeprefix(PATH).strip("/")
    started = request.services.lifecycle.started
    if name:
        return json_response(model_object(name, _card(name, models), models, started))
    cards = models.cards_with_aliases()
    return json_response(ModelList(data=[model_object(name, card, models, started) for name, card in cards.items()]))


def _card(name: str, models: ModelRegistry) -> ModelCard:
    candidate = models.candidates(name)[0]
    try:
        return models.card(candidate)
    except Exception as error:
        name_as_requested(error, candidate.model, name)
        raise
