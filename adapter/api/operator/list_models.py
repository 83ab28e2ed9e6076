"""GET /v1/models and GET /v1/models/{id}"""

from __future__ import annotations

from msgspec import UNSET

from adapter.api.common.body import json_response
from adapter.api.common.http_request import Request
from adapter.api.operator.types import ModelList, ModelObject
from adapter.generation.aliases import name_as_requested
from adapter.generation.model_registry import ModelRegistry
from adapter.server.responses import Response
from subnet.node_info import ModelCard

PATH = "/v1/models"


async def show_models(request: Request) -> Response:
    """Handle GET /v1/models and GET /v1/models/{id}; ids may contain slashes."""
    models, name = request.services.models, request.target.path.removeprefix(PATH).strip("/")
    if name:
        return json_response(_object(name, _card(name, models), models))
    cards = models.cards_with_aliases()
    return json_response(ModelList(data=[_object(name, card, models) for name, card in cards.items()]))


def _card(name: str, models: ModelRegistry) -> ModelCard:
    candidate = models.candidates(name)[0]
    try:
        return models.card(candidate)
    except Exception as error:
        name_as_requested(error, candidate.model, name)
        raise


def _object(name: str, card: ModelCard, models: ModelRegistry) -> ModelObject:
    found = models.found_format(card)
    has_template = None if card.lane == "chat" else card.chat_template is not None
    return ModelObject(
        id=name,
        created=card.created,
        has_chat_template=has_template,
        tool_format=UNSET if found is None else found.tools,
        reasoning=UNSET if found is None else found.reasoning,
    )
