"""GET /v1/models and GET /v1/models/{id}"""

from __future__ import annotations

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from adapter.models import Models
from adapter.routes.answers import json_answer
from adapter.schema.responses import ModelList, ModelObject
from subnet.node_info import ModelCard


@get("/v1/models", name="list_models")
async def list_models(models: NamedDependency[Models]) -> ASGIResponse:
    return json_answer(ModelList(data=[_object(card) for card in models.cards().values()]))


@get("/v1/models/{name:path}", name="retrieve_model")
async def retrieve_model(name: FromPath[str], models: NamedDependency[Models]) -> ASGIResponse:
    return json_answer(_object(models.card(name.removeprefix("/"))))


def _object(card: ModelCard) -> ModelObject:
    return ModelObject(id=card.id, created=card.created)
