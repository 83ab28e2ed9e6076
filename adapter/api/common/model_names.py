"""The model that the path of a request names."""

from __future__ import annotations

from adapter.api.common.http_request import Request
from adapter.generation.aliases import name_as_requested
from adapter.generation.model_registry import ModelRegistry
from subnet.node_info import ModelCard

MODELS = "/v1/models"


def requested_model(request: Request) -> str:
    """Return the name of the model below MODELS, which may contain slashes; empty if there is none."""
    return request.target.path.removeprefix(MODELS).strip("/")


def find_card(name: str, models: ModelRegistry) -> ModelCard:
    """Return the card of the model `name`, which may be an alias. Raises the errors of `models.card`."""
    candidate = models.candidates(name)[0]
    try:
        return models.card(candidate)
    except Exception as error:
        name_as_requested(error, candidate.model, name)
        raise
