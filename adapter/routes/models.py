"""GET /v1/models and GET /v1/models/{id}"""

from __future__ import annotations

from adapter.request import Request
from adapter.response import Response
from adapter.routes.answers import json_answer
from adapter.schema.responses import ModelList, ModelObject
from subnet.node_info import ModelCard

PATH = "/v1/models"


async def list_models(request: Request) -> Response:
    return json_answer(ModelList(data=[_object(card) for card in request.parts.models.cards().values()]))


async def retrieve_model(request: Request) -> Response:
    """Names may contain slashes."""
    return json_answer(_object(request.parts.models.card(request.path.removeprefix(f"{PATH}/"))))


def _object(card: ModelCard) -> ModelObject:
    return ModelObject(id=card.id, created=card.created)
