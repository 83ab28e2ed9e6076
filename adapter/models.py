"""The models that the subnet serves, ready to turn messages into tokens and tokens into text."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence

import msgspec

from adapter.choices import ChoiceReader, PlainReader, StoppingReader
from adapter.conversation import plain
from adapter.decode import Detokenizer, StopScanner, TokenTable
from adapter.errors import ModelNotFound, ModelUnusable
from adapter.prompt import DEFAULT_TEMPLATE, ChatTemplate, load_tokenizer
from adapter.schema.messages import Message
from subnet.client import RemoteManager
from subnet.errors import NoNodeAvailable, SettingsError
from subnet.node_info import ModelCard, TokenizerArtefact
from subnet.tensors import TokenIds

logger = logging.getLogger(__name__)

KEPT = 16
"""Tokenizers in memory, at most."""


class Prompt(msgspec.Struct, frozen=True):
    """A conversation as text, open for the model's answer, and `mark`, which `encode` removes: see prompt/guard.py."""

    marked: str
    mark: str

    @property
    def text(self) -> str:
        return self.marked.replace(self.mark, "") if self.mark else self.marked


class Parts:
    """What is made from a card and its artefact, which takes long."""

    def __init__(self, card: ModelCard, data: bytes) -> None:
        """Raises WireError or SettingsError for what cannot be used."""
        self.tokenizer = load_tokenizer(TokenizerArtefact.from_bytes(data))
        self.table = TokenTable(self.tokenizer.pieces, self.tokenizer.control)
        self.template = ChatTemplate(card.chat_template or DEFAULT_TEMPLATE, card.bos_token, card.eos_token)


class Model:
    """One model: its card, and how to talk to it."""

    def __init__(self, card: ModelCard, parts: Parts) -> None:
        self.card = card
        self.fingerprint = "fp_" + hashlib.sha256(msgspec.msgpack.encode(card)).hexdigest()[:10]
        self._parts = parts

    def render(self, messages: Sequence[Message]) -> Prompt:
        """Raises InvalidRequest where the model's template refuses the messages."""
        protected, mark = self._parts.tokenizer.guard.protect(plain(messages))
        return Prompt(self._parts.template.render(protected), mark)

    def encode(self, prompt: Prompt) -> TokenIds:
        """Raises InvalidRequest."""
        if self.card.chat_template is None:
            return self._parts.tokenizer.encode_bare(prompt.text)
        return self._parts.tokenizer.encode_prompt(prompt.marked, prompt.mark)

    def reader(self, index: int, stops: tuple[str, ...]) -> ChoiceReader:
        detokenizer = Detokenizer(self._parts.table)
        return StoppingReader(index, detokenizer, StopScanner(stops)) if stops else PlainReader(index, detokenizer)


_Key = tuple[str, str | None, str, str]


class Models:
    """Finds models by name. Requests for one that is being loaded wait for the same load; a failed one is tried
    again by the next request, unless it would fail again.
    """

    def __init__(self, remote_manager: RemoteManager) -> None:
        self._manager = remote_manager
        self._loads: dict[_Key, asyncio.Task[Parts]] = {}
        self._seen: set[str] = set()

    def cards(self) -> dict[str, ModelCard]:
        """Of the models that some healthy node serves now."""
        cards = self._manager.models()
        self._seen.update(cards)
        return cards

    def card(self, name: str) -> ModelCard:
        """Raises ModelNotFound, or NoNodeAvailable where the model may come back."""
        cards = self.cards()
        if name in cards:
            return cards[name]
        if name in self._seen or not self._seen:
            raise NoNodeAvailable(f"No node serves the model '{name}' now.", retry_after=1.0, param="model")
        raise ModelNotFound(
            f"The model '{name}' does not exist. Served here: {', '.join(sorted(cards)) or 'none now'}.", param="model"
        )

    async def get(self, name: str) -> Model:
        """Raises as `card` does, NodeError where the tokenizer cannot be had, and ModelUnusable."""
        card = self.card(name)
        key = (card.tokenizer, card.chat_template, card.bos_token, card.eos_token)
        if key not in self._loads:
            self._loads[key] = self._start(key, card)
        return Model(card, await asyncio.shield(self._loads[key]))

    def _start(self, key: _Key, card: ModelCard) -> asyncio.Task[Parts]:
        if len(self._loads) >= KEPT:
            del self._loads[next(iter(self._loads))]
        task = asyncio.create_task(self._load(card))
        task.add_done_callback(lambda done: self._forget_failed(key, done))
        return task

    async def _load(self, card: ModelCard) -> Parts:
        data = await self._manager.artefact(card.tokenizer)
        try:
            return await asyncio.to_thread(Parts, card, data)
        except SettingsError as error:
            logger.error("the model '%s' cannot be used: %s", card.id, error)
            raise ModelUnusable(f"The model '{card.id}' cannot be used here.", param="model") from error

    def _forget_failed(self, key: _Key, task: asyncio.Task[Parts]) -> None:
        failed = task.cancelled() or not isinstance(task.exception(), ModelUnusable | None)
        if failed and self._loads.get(key) is task:
            del self._loads[key]
