"""Registry of the models that the subnet serves, with their tokenizers, chat templates and tool formats."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar

import msgspec

from adapter.decode import Detokenizer, TokenTable, create_detokenizer
from adapter.decode.choice import ChoiceReader, FullChoiceReader, TextChoiceReader
from adapter.decode.token_logprobs import LogprobFormatter
from adapter.errors import BadRequest, ModelNotFound, ModelUnusable
from adapter.generation.aliases import MAX_NAME, Aliases
from adapter.generation.artefact_source import ArtefactSource
from adapter.generation.base import Candidate
from adapter.generation.card_digest import card_digest
from adapter.generation.model_format import FoundFormat, find_format, find_format_of_two
from adapter.generation.output_options import OutputOptions
from adapter.offload import collection_paused, offload_if_large, offload_waiting
from adapter.prompt import (
    DEFAULT_TEMPLATE,
    Budget,
    ChatTemplate,
    Conversation,
    EncodeOnNode,
    Prompt,
    load_tokenizer,
    render_conversation,
)
from subnet import RemoteManager
from subnet.artefact_cache import ArtefactCache
from subnet.errors import NoNodeAvailable, SettingsError
from subnet.node_info import Capabilities, GrammarKind, Lane, ModelCard, TokenizerArtefact
from subnet.stop_scanner import StopScanner
from subnet.tensors import TokenIds
from subnet.threads import Threads

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_MAX_TOKENIZERS = 16
"""Maximum number of tokenizers in memory."""

# Loading may wait for a node that tokenizes, so that one model holds up others only if many wait.
_threads = Threads(8, "load-model")


class LoadedTokenizer:
    """Tokenizer, chat template and tool format of a model, loaded from its card and its tokenizer artefact.

    Loading takes long. `tool_template` is that for requests with tools, by default the same. `found` says in which
    format the model writes tool calls and reasoning; `format` is the same for its vocabulary. `table` hides control
    tokens; `marked_table` shows those among them that are marks of `format`.
    """

    def __init__(
        self,
        card: ModelCard,
        data: bytes,
        tool_format: str | None = None,
        encode_on_node: EncodeOnNode | None = None,
        *,
        busy: bool = False,
    ) -> None:
        """Load the tokenizer. `encode_on_node` and `busy` are those of load_tokenizer.

        Raises WireError or SettingsError if the artefact or the template cannot be used.
        """
        self.tokenizer = load_tokenizer(TokenizerArtefact.from_bytes(data), encode_on_node, busy=busy)
        self.template = self.tool_template = ChatTemplate(
            card.chat_template or DEFAULT_TEMPLATE, card.bos_token, card.eos_token
        )
        special = self.tokenizer.special
        control = [text for text, token in special.items() if token in self.tokenizer.control]
        if card.tool_template is None:
            self.found = find_format(self.template, tool_format, control)
        else:
            self.tool_template = ChatTemplate(card.tool_template, card.bos_token, card.eos_token)
            self.found = find_format_of_two(self.template, self.tool_template, tool_format, control)
        self.format = self.found.format.for_vocabulary(self.tokenizer.pieces)
        self._tables: dict[frozenset[int], TokenTable] = {}
        self.table = self._table(self.tokenizer.control)
        marks = {special[mark] for mark in self.format.visible_marks if mark in special}
        self.marked_table = self._table(self.tokenizer.control - marks)

    @property
    def full_table(self) -> TokenTable:
        """Token table in which no token is hidden."""
        return self._table(frozenset())

    def _table(self, hidden: frozenset[int]) -> TokenTable:
        if hidden not in self._tables:
            self._tables[hidden] = TokenTable(self.tokenizer.pieces, hidden)
        return self._tables[hidden]


class Model:
    """Model card with the tokenizer, chat template and tool format of the model. `identity` is the card's."""

    def __init__(self, card: ModelCard, loaded: LoadedTokenizer) -> None:
        self.card = card
        self.format = loaded.format
        self.tokenizer = loaded.tokenizer
        self.fingerprint = fingerprint(card)
        self.identity = card.identity
        self._loaded = loaded

    def render(
        self, conversation: Conversation, template: ChatTemplate | None = None, budget: Budget | None = None
    ) -> Prompt:
        """Render the prompt with `template`, or with the model's own. Raises InvalidRequest if the template rejects the
        conversation, and TemplateTooSlow if that exceeds `budget`, which by default grows with the conversation.
        """
        return render_conversation(conversation, template or self.template(conversation), self.tokenizer.guard, budget)

    def template(self, conversation: Conversation) -> ChatTemplate:
        """Return the model's template for a conversation."""
        return self._loaded.found.template if conversation.has_tools else self._loaded.template

    def check_tools(self) -> None:
        """Raise BadRequest if tools cannot be offered to this model."""
        if self._loaded.found.refuses_tools:
            message = (
                f"The model '{self.card.id}' does not support tools here: it is not known how it writes tool calls."
                " The operator of the gateway can name the format with the setting 'tool_format'."
            )
            raise BadRequest(message, param="tools", code="unsupported_value")

    def encode(self, prompt: Prompt) -> TokenIds:
        """Tokenize a rendered prompt. Raises InvalidRequest."""
        if self.card.chat_template is None:
            return self.tokenizer.encode_with_bos(prompt.text)
        return self.tokenizer.encode_prompt(prompt.marked, prompt.mark)

    async def offload(self, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work`, which tokenizes a request of `size` bytes, and return its result.

        It runs in a thread if the request is large, or if a node or another process tokenizes; then it may also raise
        NoNodeAvailable.
        """
        if self.tokenizer.waits:
            return await offload_waiting(work, *args, **kwargs)
        return await offload_if_large(size, work, *args, **kwargs)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`, including control tokens."""
        return Detokenizer(self._loaded.full_table).decode(tokens)

    def reader(
        self, index: int, options: OutputOptions, max_tokens: int | None = None, choices: int = 1
    ) -> ChoiceReader:
        """Create a reader of choice `index`, of the fastest class that supports `options`.

        There are `choices` in all, of at most `max_tokens` tokens each (None: not known).
        """
        parser = None if options.format is None else options.format.parser(options.tools, options.starts_in_reasoning)
        table = self._loaded.table if parser is None else self._loaded.marked_table
        table = self._loaded.full_table if options.show_control_tokens else table
        detokenizer = create_detokenizer(table, max_tokens, choices)
        if parser is None and not options.stops and options.logprobs is None and not options.token_ids:
            return TextChoiceReader(index, detokenizer)
        return FullChoiceReader(
            index,
            detokenizer,
            scanner=StopScanner(options.stops, options.include_stop) if options.stops else None,
            parser=parser,
            formatter=None if options.logprobs is None else LogprobFormatter(self.tokenizer.pieces, options.logprobs),
            token_ids=options.token_ids,
        )


@lru_cache(maxsize=256)
def fingerprint(card: ModelCard) -> str:
    """Return OpenAI's `system_fingerprint`. It changes when the model, its tokenizer or its template does."""
    return "fp_" + hashlib.sha256(msgspec.msgpack.encode(card)).hexdigest()[:10]


def _load_paused(*args: Any, **kwargs: Any) -> LoadedTokenizer:
    with collection_paused():
        return LoadedTokenizer(*args, **kwargs)


# In the order in which they are tried.
_LANES: tuple[Lane, ...] = ("token", "chat")

_Key = tuple[str, str | None, str | None, str, str, str | None]


class ModelRegistry:
    """Finds models by name and loads their tokenizers.

    Requests for a model that is being loaded wait for the same load. If a load fails, the next request tries again,
    unless the error is permanent (ModelUnusable). `tool_formats` are the formats that the operator set, by model.
    `promised` are models that nodes are known to serve, as those of `aliases` are, before any was seen. Artefacts are
    kept in `cache`, if there is one.
    """

    def __init__(
        self,
        remote_manager: RemoteManager,
        tool_formats: Mapping[str, str] | None = None,
        aliases: Aliases | None = None,
        promised: Iterable[str] = (),
        cache: ArtefactCache | None = None,
    ) -> None:
        self._manager = remote_manager
        self._artefacts = ArtefactSource(remote_manager, cache)
        self._aliases = aliases or Aliases()
        self._known = set(self._aliases.models.union(promised))
        self._has_seen_any = False
        self._tool_formats = tool_formats or {}
        self._loads: dict[_Key, asyncio.Task[LoadedTokenizer]] = {}
        self._latest: dict[str, Model] = {}

    def cards(self) -> Mapping[str, ModelCard]:
        """Return the cards of the models that at least one healthy node serves, by id."""
        cards = self._manager.models()
        if not self._known.issuperset(cards):
            self._known.update(cards)
        self._has_seen_any = self._has_seen_any or bool(cards)
        return cards

    @property
    def default_name(self) -> str | None:
        """Name of the model for requests that name none: that of the settings, or the only one that is served."""
        if self._aliases.default is not None:
            return self._aliases.default
        cards = self.cards()
        return next(iter(cards)) if len(cards) == 1 else None

    def candidates(self, name: str) -> list[Candidate]:
        """Return what to try for `name`, in order: the model it refers to, then its fallbacks.

        A model that is served on both lanes is tried on the token lane first.
        """
        self.cards()
        found: list[Candidate] = []
        for model in self._aliases.candidates(name, self._known):
            if len(self._manager.cards(model)) < len(_LANES):
                found.append(Candidate(model))
            else:
                found += (Candidate(model, lane) for lane in _LANES)
        return found

    def cards_with_aliases(self) -> dict[str, ModelCard]:
        """Return the cards of `cards`, by id and by each of their aliases."""
        cards = self.cards()
        aliases = {alias: cards.get(self._aliases.resolve(alias, cards)) for alias in self._aliases.aliases}
        return {**cards} | {alias: card for alias, card in aliases.items() if card is not None}

    def grammars(self, model: Model) -> tuple[frozenset[GrammarKind], frozenset[GrammarKind]]:
        """Return the grammar kinds that all healthy nodes of `model` support, and those that any supports."""
        return self._manager.grammars(model.card.id)

    def capabilities(self, card: ModelCard) -> list[Capabilities]:
        """Return the optional features of each healthy node of a model; none on the chat lane."""
        return [] if card.lane == "chat" else self._manager.capabilities(card.id)

    def continues_messages(self, card: ModelCard) -> bool:
        """Return whether a server of a model on the chat lane can continue a message; True if none is healthy."""
        nodes = self._manager.capabilities(card.id, "chat")
        return not nodes or any(node.prefill for node in nodes)

    def card(self, candidate: Candidate) -> ModelCard:
        """Return the card of one of `candidates`: aliases are not resolved again.

        Raises ModelNotFound, or NoNodeAvailable if the settings promise the model, if it was served before, or if no
        model has been served so far.
        """
        name, lane = candidate.model, candidate.lane
        cards = self.cards()
        card = cards.get(name) if lane is None else self._manager.cards(name).get(lane)
        if card is not None:
            return card
        name = name[:MAX_NAME]
        if name in self._known or not self._has_seen_any:
            raise NoNodeAvailable(f"No node is currently serving the model '{name}'.", retry_after=1.0, param="model")
        raise ModelNotFound(
            f"The model '{name}' does not exist. Available models: {', '.join(sorted(cards)) or 'none'}.", param="model"
        )

    async def get(self, name: str) -> Model:
        """Return the model of the candidate `name` on the token lane, and load its tokenizer if necessary.

        Raises the errors of `card`, BadRequest for a model on the chat lane, NoNodeAvailable if no node provides the
        tokenizer, WireError if a node sent an invalid one, and ModelUnusable if the model cannot be loaded.
        """
        card = self.card(Candidate(name))
        name = card.id
        if card.lane == "chat":
            message = (
                f"The model '{name}' does not support this request: its server accepts messages and text, but not token"
                " ids. Use /v1/chat/completions or /v1/completions instead."
            )
            raise BadRequest(message, param="model", code="unsupported_model")
        latest = self._latest.get(name)
        if latest is not None and (latest.card is card or latest.card == card):
            return latest
        loaded = await self._loaded(card)
        if len(self._latest) >= _MAX_TOKENIZERS:
            self._latest.clear()
        self._latest[name] = Model(card, loaded)
        return self._latest[name]

    async def digest(self, card: ModelCard) -> str:
        """Return the digest of what `card` does; see card_digest. Raises the errors of `get`."""
        loaded = await self._loaded(card)
        templates = (loaded.template, loaded.tool_template)
        return await _threads.run(card_digest, loaded.tokenizer, templates, card.stop_tokens)

    def found_format(self, card: ModelCard) -> FoundFormat | None:
        """Return the format of a model; None on the chat lane, and until its tokenizer is loaded."""
        load = self._loads.get(self._key(card))
        if load is None or not load.done() or load.cancelled() or load.exception() is not None:
            return None
        return load.result().found

    def _key(self, card: ModelCard) -> _Key:
        templates = (card.chat_template, card.tool_template, card.bos_token, card.eos_token)
        return (card.tokenizer, *templates, self._tool_formats.get(card.id))

    async def _loaded(self, card: ModelCard) -> LoadedTokenizer:
        key = self._key(card)
        if key not in self._loads:
            self._loads[key] = self._start(key, card)
        return await asyncio.shield(self._loads[key])

    def _start(self, key: _Key, card: ModelCard) -> asyncio.Task[LoadedTokenizer]:
        if len(self._loads) >= _MAX_TOKENIZERS:
            del self._loads[next(iter(self._loads))]
        task = asyncio.create_task(self._load(card))
        task.add_done_callback(lambda done: self._forget_failed(key, done))
        return task

    async def _load(self, card: ModelCard) -> LoadedTokenizer:
        data = await self._artefacts.get(card.tokenizer)
        tool_format, encode_on_node = self._tool_formats.get(card.id), self._encode_on_node(card.tokenizer)
        busy = any(remote.running for remote in self._manager.remotes)
        try:
            loaded = await _threads.run(_load_paused, card, data, tool_format, encode_on_node, busy=busy)
        except SettingsError as error:
            logger.error("model '%s' cannot be loaded: %s", card.id, error)
            raise ModelUnusable(f"The model '{card.id}' could not be loaded.", param="model") from error
        if derived := loaded.found.derived:
            logger.info("model '%s': derived the format of %s from its chat template", card.id, " and ".join(derived))
        if problems := loaded.found.problems:
            logger.warning("model '%s': %s; see the setting tool_format", card.id, "; ".join(problems))
        return loaded

    def _encode_on_node(self, sha256: str) -> EncodeOnNode:
        """Return the function with which a tokenizer in another thread asks a node for token ids."""
        loop = asyncio.get_running_loop()

        def encode(texts: Sequence[str]) -> list[TokenIds]:
            return asyncio.run_coroutine_threadsafe(self._manager.tokenize(sha256, texts), loop).result()

        return encode

    def _forget_failed(self, key: _Key, task: asyncio.Task[LoadedTokenizer]) -> None:
        failed = task.cancelled() or not isinstance(task.exception(), ModelUnusable | None)
        if failed and self._loads.get(key) is task:
            del self._loads[key]
