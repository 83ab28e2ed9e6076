"""The models that the subnet serves, ready to turn messages into tokens and tokens into text."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from adapter.decode import Detokenizer, StopScanner, TokenTable
from adapter.decode.choice import ChoiceReader, FullChoiceReader, TextChoiceReader
from adapter.decode.token_logprobs import LogprobFormatter
from adapter.errors import BadRequest, ModelNotFound, ModelUnusable
from adapter.generation.aliases import Aliases
from adapter.generation.output_options import OutputOptions
from adapter.prompt import DEFAULT_TEMPLATE, ChatTemplate, Conversation, Prompt, load_tokenizer, write
from adapter.tools import ModelFormat, parse_format_name, select_format
from subnet import RemoteManager
from subnet.errors import NoNodeAvailable, SettingsError
from subnet.node_info import GrammarKind, ModelCard, TokenizerArtefact
from subnet.tensors import TokenIds

logger = logging.getLogger(__name__)

KEPT = 16
"""Tokenizers in memory, at most."""


class LoadedTokenizer:
    """A tokenizer, chat template and tool format, made from a card and its artefact, which takes long.

    `kind` is how the model writes tool calls and reasoning.
    """

    def __init__(self, card: ModelCard, data: bytes, tool_format: str | None = None) -> None:
        """Raises WireError or SettingsError for what cannot be used."""
        source = card.chat_template or DEFAULT_TEMPLATE
        self.tokenizer = load_tokenizer(TokenizerArtefact.from_bytes(data))
        self.template = ChatTemplate(source, card.bos_token, card.eos_token)
        self.kind = _kind(self.template, source, tool_format).for_vocabulary(self.tokenizer.pieces)
        self._tables: dict[frozenset[int], TokenTable] = {}
        self.table = self._table(self.tokenizer.control)
        marks = {self.tokenizer.special[mark] for mark in self.kind.visible_marks if mark in self.tokenizer.special}
        self.marked_table = self._table(self.tokenizer.control - marks)

    @property
    def bare_table(self) -> TokenTable:
        """In which nothing is hidden."""
        return self._table(frozenset())

    def _table(self, hidden: frozenset[int]) -> TokenTable:
        if hidden not in self._tables:
            self._tables[hidden] = TokenTable(self.tokenizer.pieces, hidden)
        return self._tables[hidden]


class Model:
    """One model: its card, and how to talk to it."""

    def __init__(self, card: ModelCard, loaded: LoadedTokenizer) -> None:
        self.card = card
        self.kind = loaded.kind
        self.tokenizer = loaded.tokenizer
        self.fingerprint = fingerprint(card)
        self._loaded = loaded

    def write(self, conversation: Conversation, template: ChatTemplate | None = None) -> Prompt:
        """By `template`, or by the model's own. Raises InvalidRequest where that refuses the conversation."""
        return write(conversation, template or self._loaded.template, self.tokenizer.guard)

    def encode(self, prompt: Prompt) -> TokenIds:
        """Raises InvalidRequest."""
        if self.card.chat_template is None:
            return self.tokenizer.encode_bare(prompt.text)
        return self.tokenizer.encode_prompt(prompt.marked, prompt.mark)

    def text(self, tokens: Sequence[int]) -> str:
        """What `tokens` say, control tokens among them."""
        return Detokenizer(self._loaded.bare_table).decode(tokens)

    def reader(self, index: int, view: OutputOptions) -> ChoiceReader:
        """For one choice."""
        parser = None if view.kind is None else view.kind.parser(view.tools, view.opened)
        table = self._loaded.table if parser is None else self._loaded.marked_table
        detokenizer = Detokenizer(self._loaded.bare_table if view.special else table)
        if parser is None and not view.stops and view.logprobs is None and not view.token_ids:
            return TextChoiceReader(index, detokenizer)
        return FullChoiceReader(
            index,
            detokenizer,
            scanner=StopScanner(view.stops, view.include_stop) if view.stops else None,
            parser=parser,
            formatter=None if view.logprobs is None else LogprobFormatter(self.tokenizer.pieces, view.logprobs),
            token_ids=view.token_ids,
        )


def _kind(template: ChatTemplate, source: str, tool_format: str | None) -> ModelFormat:
    if tool_format is not None:
        return select_format(source, *parse_format_name(tool_format))
    kind = select_format(source)
    if template.knows_tools or (kind.tool_format is not None and kind.tool_format.marks_reasoning):
        return kind
    # The format in which the prompt then explains tools.
    return select_format(source, "hermes")


@lru_cache(maxsize=256)
def fingerprint(card: ModelCard) -> str:
    """Changes when the model, its tokenizer or its template does."""
    return "fp_" + hashlib.sha256(msgspec.msgpack.encode(card)).hexdigest()[:10]


_Key = tuple[str, str | None, str, str, str | None]


class ModelRegistry:
    """Finds models by name. Requests for one that is being loaded wait for the same load; a failed one is tried
    again by the next request, unless it would fail again. `tool_formats` are the formats of calls, by model, that the
    operator set.
    """

    def __init__(
        self,
        remote_manager: RemoteManager,
        tool_formats: Mapping[str, str] | None = None,
        names: Aliases | None = None,
    ) -> None:
        self._manager = remote_manager
        self._names = names or Aliases()
        self._tool_formats = tool_formats or {}
        self._loads: dict[_Key, asyncio.Task[LoadedTokenizer]] = {}
        self._latest: dict[str, Model] = {}
        self._seen: set[str] = set()

    def cards(self) -> Mapping[str, ModelCard]:
        """Of the models that some healthy node serves now."""
        cards = self._manager.models()
        if not self._seen.issuperset(cards):
            self._seen.update(cards)
        return cards

    def chain(self, name: str) -> tuple[str, ...]:
        """The models to ask for what a client calls `name`, in order."""
        self.cards()
        return self._names.chain(name, self._seen)

    def listed(self) -> dict[str, ModelCard]:
        """Those of `cards`, and under their aliases again."""
        cards = self.cards()
        aliases = {alias: cards.get(self._names.model(alias, cards)) for alias in self._names.aliases}
        return {**cards} | {alias: card for alias, card in aliases.items() if card is not None}

    def grammars(self, model: Model) -> frozenset[GrammarKind]:
        """Those that all the nodes of `model` keep to."""
        return self._manager.grammars(model.card.id)

    def card(self, name: str) -> ModelCard:
        """By its own name or another. Raises ModelNotFound, or NoNodeAvailable where the model may come back."""
        cards = self.cards()
        name = self._names.model(name, self._seen)
        if name in cards:
            return cards[name]
        if name in self._seen or not self._seen:
            raise NoNodeAvailable(f"No node is currently serving the model '{name}'.", retry_after=1.0, param="model")
        raise ModelNotFound(
            f"The model '{name}' does not exist. Available models: {', '.join(sorted(cards)) or 'none'}.", param="model"
        )

    async def get(self, name: str) -> Model:
        """Raises as `card` does, BadRequest for a model that takes messages only, NodeError where the tokenizer cannot
        be had, and ModelUnusable.
        """
        card = self.card(name)
        name = card.id
        if card.lane == "chat":
            message = f"The model '{name}' only supports chat completions. Use /v1/chat/completions instead."
            raise BadRequest(message, param="model", code="unsupported_model")
        latest = self._latest.get(name)
        if latest is not None and (latest.card is card or latest.card == card):
            return latest
        key = (card.tokenizer, card.chat_template, card.bos_token, card.eos_token, self._tool_formats.get(name))
        if key not in self._loads:
            self._loads[key] = self._start(key, card)
        loaded = await asyncio.shield(self._loads[key])
        if len(self._latest) >= KEPT:
            self._latest.clear()
        self._latest[name] = Model(card, loaded)
        return self._latest[name]

    def _start(self, key: _Key, card: ModelCard) -> asyncio.Task[LoadedTokenizer]:
        if len(self._loads) >= KEPT:
            del self._loads[next(iter(self._loads))]
        task = asyncio.create_task(self._load(card))
        task.add_done_callback(lambda done: self._forget_failed(key, done))
        return task

    async def _load(self, card: ModelCard) -> LoadedTokenizer:
        data = await self._manager.artefact(card.tokenizer)
        try:
            return await asyncio.to_thread(LoadedTokenizer, card, data, self._tool_formats.get(card.id))
        except SettingsError as error:
            logger.error("model '%s' cannot be loaded: %s", card.id, error)
            raise ModelUnusable(f"The model '{card.id}' could not be loaded.", param="model") from error

    def _forget_failed(self, key: _Key, task: asyncio.Task[LoadedTokenizer]) -> None:
        failed = task.cancelled() or not isinstance(task.exception(), ModelUnusable | None)
        if failed and self._loads.get(key) is task:
            del self._loads[key]
