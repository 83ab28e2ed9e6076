"""The models of a server, as model cards: what its list says of them, in whichever form."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from subnet.errors import NodeBusy, NodeError, RequestError, Unauthorized
from subnet.http.client import HttpClient
from subnet.http.node_spec import NodeSpec
from subnet.models.names import model_id_from_served_name
from subnet.node_info import Modality, ModelCard
from subnet.protocols.openai.listing import Lister, Listing

# How long a list is believed, and a refusal of the key, in seconds.
_FRESH = 30.0


class Models:
    """The cards of the server that `spec` names: of spec.models, or of all that the server lists.

    It is asked at most every 30 s while all is well, and not before it wants to be asked again.
    """

    def __init__(self, spec: NodeSpec, http: HttpClient) -> None:
        self._spec = spec
        self._lister = Lister(spec, http)
        self._asking = asyncio.Lock()
        self._cards: tuple[ModelCard, ...] = ()
        self._theirs: Mapping[str, str] = spec.models
        self._error: NodeError | None = None
        self._until = 0.0

    def theirs(self, name: str, any_model: str | None = None) -> str:
        """What the server calls the model `name`; `any_model` is its word for whichever it serves."""
        return self._spec.models.get(name) or any_model or self._theirs.get(name, name)

    async def cards(self) -> tuple[ModelCard, ...]:
        """Raises NodeError."""
        async with self._asking:
            if time.monotonic() >= self._until:
                await self._ask()
            if self._error is not None:
                raise type(self._error)(self._error.message, retry_after=self._error.retry_after)
            return self._cards

    def forget(self) -> None:
        """Ask the next time, unless the server wants to be left alone."""
        if self._error is None:
            self._until = 0.0

    async def _ask(self) -> None:
        self._error, wait = None, _FRESH
        try:
            self._cards = self._made(await self._lister.models())
        except NodeBusy as error:
            # It is there. How it is with answers is seen when one is asked for.
            self._error = None if self._cards else error
            wait = _FRESH if error.retry_after is None else error.retry_after
        except Unauthorized as error:
            self._error = error
        except RequestError as error:
            self._error, wait = NodeError(f"{self._spec.peer} refused to list its models: {error.message}"), 0.0
        except NodeError as error:
            self._error, wait = error, error.retry_after or 0.0
        self._until = time.monotonic() + wait

    def _made(self, found: list[Listing]) -> tuple[ModelCard, ...]:
        by_name = {name: listing for listing in found for name in listing.names}
        self._theirs = self._spec.models or {model_id_from_served_name(listing.names[0]): listing.names[0] for listing in found}
        return tuple(self._card(name, by_name.get(theirs)) for name, theirs in self._theirs.items())

    def _card(self, name: str, listing: Listing | None) -> ModelCard:
        modalities: tuple[Modality, ...] = () if listing is None else listing.modalities
        return ModelCard(
            id=name,
            context_length=self._spec.context_length or (0 if listing is None else listing.context_length),
            tokenizer="",
            created=0 if listing is None else listing.created,
            lane="chat",
            modalities=modalities if self._spec.modalities is None else self._spec.modalities,
        )
