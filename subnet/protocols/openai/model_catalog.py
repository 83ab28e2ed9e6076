"""Model cards of a server, from its model list and the node's settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from subnet.errors import NodeBusy, NodeError, RequestError, Unauthorized
from subnet.http.client import HttpClient
from subnet.http.error_map import cannot_list
from subnet.http.node_spec import NodeSpec
from subnet.models.names import model_id_from_served_name
from subnet.node_info import Modality, ModelCard
from subnet.protocols.openai.model_features import ModelFeatures
from subnet.protocols.openai.model_list import ListedModel, ModelLister

# vLLM, SGLang and llama-server report the time of the request, by a clock that may differ from ours, in seconds.
_MIN_AGE = 600

# How long a model list, or a rejected API key, is cached, in seconds.
_CACHE_TIME = 30.0


class ModelCatalog:
    """Model cards of the server of `spec`: of spec.models, or of all models that the server lists.

    The list is requested at most every 30 s, and never before the server's Retry-After. A server that answers, but has
    never listed its models, has those of spec.models.
    """

    def __init__(self, spec: NodeSpec, http: HttpClient) -> None:
        self._spec = spec
        self._lister = ModelLister(spec, http)
        self._lock = asyncio.Lock()
        self._cards: tuple[ModelCard, ...] = ()
        self._upstream_names: Mapping[str, str] = spec.models
        self._error: NodeError | None = None
        self._has_list = False
        self._expires = 0.0
        # The first time reported for each model: it must not change with every list.
        self._created: dict[str, int] = {}

    def upstream_name(self, name: str, any_model: str | None = None) -> str:
        """Return the server's name of the model `name`; `any_model` is its name for whichever model it serves."""
        return self._spec.models.get(name) or any_model or self._upstream_names.get(name, name)

    async def cards(self) -> tuple[ModelCard, ...]:
        """Return the model cards, from the cache while it is valid. Raises NodeError if they are unavailable."""
        async with self._lock:
            if time.monotonic() >= self._expires:
                await self._refresh()
            if self._error is not None:
                raise type(self._error)(self._error.message, retry_after=self._error.retry_after)
            return self._cards

    def invalidate(self) -> None:
        """Request the list again the next time, unless the server returned an error with a time to wait."""
        if self._error is None:
            self._expires = 0.0

    async def _refresh(self) -> None:
        self._error, wait = None, _CACHE_TIME
        try:
            self._cards = self._make_cards(await self._lister.list_models())
            self._has_list = True
        except (NodeError, RequestError) as error:
            if self._spec.models and not self._has_list and cannot_list(error):
                self._cards = self._make_cards([])
            else:
                self._error, wait = self._refusal(error)
        self._expires = time.monotonic() + wait

    def _refusal(self, error: NodeError | RequestError) -> tuple[NodeError | None, float]:
        """Return the error to raise for a server that does not list its models, and the seconds until the next try."""
        if isinstance(error, NodeBusy):
            # The server is up: it may be able to generate, and a request will show it.
            wait = _CACHE_TIME if error.retry_after is None else error.retry_after
            return (None if self._cards else error), wait
        if isinstance(error, NodeError):
            return error, _CACHE_TIME if isinstance(error, Unauthorized) else error.retry_after or 0.0
        return NodeError(f"{self._spec.peer} refused to list its models: {error.message}"), 0.0

    def _make_cards(self, models: list[ListedModel]) -> tuple[ModelCard, ...]:
        by_name = {name: model for model in models for name in model.names}
        self._upstream_names = self._spec.models or {
            model_id_from_served_name(model.names[0]): model.names[0] for model in models
        }
        return tuple(self._card(name, by_name.get(upstream)) for name, upstream in self._upstream_names.items())

    def _card(self, name: str, model: ListedModel | None) -> ModelCard:
        modalities: tuple[Modality, ...] = () if model is None else model.modalities
        features = ModelFeatures() if model is None else model.features
        return ModelCard(
            id=name,
            context_length=self._spec.context_length or (0 if model is None else model.context_length),
            tokenizer="",
            created=self._first_created(name, model),
            lane="chat",
            modalities=modalities if self._spec.modalities is None else self._spec.modalities,
            tools=features.tools,
            reasoning=features.reasoning,
            parameters=features.parameters,
        )

    def _first_created(self, name: str, model: ListedModel | None) -> int:
        """Return when a model was created; 0 if the server reports the time of the request instead."""
        if model is None:
            return self._created.get(name, 0)
        is_real = model.created < time.time() - _MIN_AGE
        return self._created.setdefault(name, model.created if is_real else 0)
