"""GET /v1/models and GET /v1/models/{id} as Anthropic's clients expect them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from adapter.api.common.body import json_response
from adapter.api.common.http_request import Request
from adapter.api.common.model_names import find_card, requested_model
from adapter.server.responses import Response
from subnet.node_info import ModelCard


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A model. `max_input_tokens` and `max_tokens` are its context length, in which both must fit; null: unknown."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None
    max_tokens: int | None
    lifecycle: Literal["active"] = "active"


class ModelPage(Struct, frozen=True, kw_only=True):
    """All models: there is only one page."""

    data: list[ModelInfo]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


async def show_models(request: Request) -> Response:
    """Handle GET /v1/models and GET /v1/models/{id} for clients of Anthropic's API."""
    models, started = request.services.models, request.services.lifecycle.started
    if name := requested_model(request):
        return json_response(_info(name, find_card(name, models), started))
    data = [_info(name, card, started) for name, card in models.cards_with_aliases().items()]
    ids = [info.id for info in data]
    return json_response(ModelPage(data=data, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None))


def _info(name: str, card: ModelCard, started: int) -> ModelInfo:
    created = datetime.fromtimestamp(card.created or started, UTC)
    length = card.context_length or None
    return ModelInfo(
        id=name,
        display_name=name,
        created_at=created.isoformat().replace("+00:00", "Z"),
        max_input_tokens=length,
        max_tokens=length,
    )
