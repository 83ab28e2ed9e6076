"""Ledger of the chat lane, where requests are messages or text, and answers are text and tool calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import getrandbits
from typing import Any

import msgspec

from subnet.chat import CallDelta, ChatDelta, ChatRequest, ChatText, ChatUsage, Endpoint
from subnet.client.ledger.base import Ledger
from subnet.client.ledger.token_limits import token_limit
from subnet.errors import WireError
from subnet.node_info import Capabilities, Modality
from subnet.pool.policies.base import MAX_TEXT_HINT, RoutingHint

# Size of a request from which its messages are not encoded only to be measured, in bytes.
_LARGE_REQUEST = 64 << 10
# Number of parts of a text that are joined to one.
_JOINED_PARTS = 64
# Approximation, for estimated token counts.
_BYTES_PER_TOKEN = 4
# By the type of a message's part: OpenAI's types, and those of vLLM and SGLang.
_MODALITIES: Mapping[str, Modality] = {
    "image_url": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "file": "file",
}
_STRUCTURED_OUTPUT_PARAMS = (
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "grammar",
    "json_schema",
    "regex",
    "ebnf",
)


class ChatCall:
    """Delivered part of a tool call. `extra` are its other members, in parts."""

    __slots__ = ("arguments", "extra", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments: list[str] = []
        self.extra: list[dict[str, Any]] = []


class ChatChoice:
    """Delivered part of one choice.

    `tokens` is the minimum number of delivered tokens, as some servers send several in one delta; `reported_tokens` of
    them are included in a server's report of its usage. `has_extra`: members were delivered that are not compared when
    an answer is repeated. `lists` are the last values of other members of the response that are lists.
    """

    __slots__ = (
        "calls",
        "finished",
        "has_extra",
        "index",
        "lists",
        "logprob_count",
        "reasoning",
        "refusal",
        "reported_tokens",
        "text",
        "tokens",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.finished = False
        self.has_extra = False
        self.lists: dict[str, list[Any]] = {}
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[ChatCall] = []
        self.logprob_count = 0
        self.tokens = 0
        self.reported_tokens = 0

    @property
    def is_plain_text(self) -> bool:
        """True if nothing but text was delivered: no reasoning, refusal or tool call."""
        return not (self.reasoning or self.refusal or self.calls)

    def add(self, delta: ChatDelta) -> None:
        if type(delta) is ChatText:
            self.text.append(delta.text)
            self.tokens = tokens = self.tokens + 1
            if not tokens % _JOINED_PARTS:
                self._join_text()
        else:
            self._add_parts(delta)

    def _join_text(self) -> None:
        # A text takes much more memory in parts of one token each.
        self.text[-_JOINED_PARTS:] = ["".join(self.text[-_JOINED_PARTS:])]

    def _add_parts(self, delta: ChatDelta) -> None:
        before, self.tokens = self.tokens, self.tokens + delta.tokens
        self.logprob_count += len(delta.logprobs or ())
        self.finished = delta.finish_reason is not None
        self.has_extra = self.has_extra or delta.extra is not None
        for parts, new in ((self.text, delta.text), (self.reasoning, delta.reasoning), (self.refusal, delta.refusal)):
            if new:
                parts.append(new)
        if self.text and self.tokens // _JOINED_PARTS != before // _JOINED_PARTS:
            self._join_text()
        for call in delta.calls:
            self._add_call(call)
        if delta.response_extra:
            self.lists |= {name: value for name, value in delta.response_extra.items() if isinstance(value, list)}

    def _add_call(self, delta: CallDelta) -> None:
        if delta.index == len(self.calls) and delta.name:
            self.calls.append(ChatCall(delta.name))
        if not 0 <= delta.index < len(self.calls):
            raise WireError("received arguments for an unknown tool call")
        call = self.calls[delta.index]
        call.arguments.append(delta.arguments)
        if delta.extra:
            call.extra.append(delta.extra)


class ChatLedger(Ledger[ChatDelta]):
    """Ledger of a chat request. `has_own_seed`: the node that began the answer used the request's `own_seed`."""

    __slots__ = ("_prompt_tokens", "_usage_extra", "_usage_reports", "choices", "has_own_seed", "request")

    lane = "chat"
    choices: list[ChatChoice]

    def __init__(self, request: ChatRequest, key: str | None = None) -> None:
        given, size = _measured(request)
        super().__init__(request.model, size // _BYTES_PER_TOKEN, RoutingHint.of_text(given, key, size))
        self.request = msgspec.structs.replace(request, own_seed=getrandbits(31))
        self.has_own_seed = False
        self.choices = [ChatChoice(index) for index in range(len(request.choices))]
        self._usage_reports: list[ChatUsage] = []
        self._usage_extra: dict[str, Any] | None = None
        self._prompt_tokens: int | None = None

    @property
    def endpoint(self) -> Endpoint:
        return self.request.endpoint

    @property
    def unfinished(self) -> list[ChatChoice]:
        return [choice for choice in self.choices if not choice.finished]

    @property
    def delivered_tokens(self) -> int:
        return sum(choice.tokens for choice in self.choices)

    @property
    def modalities(self) -> frozenset[Modality]:
        return frozenset(_modalities(self.request.body.get("messages")))

    @property
    def max_tokens(self) -> int | None:
        """Maximum number of tokens of each choice; None if there is none. Some servers take -1 for that.

        With `echo` it is None, too, as the tokens of the prompt count as delivered.
        """
        return None if self.request.body.get("echo") else token_limit(self.request.body)

    def can_continue(self, capabilities: Capabilities) -> bool:
        """Return whether a node with `capabilities` can continue a part of the answer."""
        if self.endpoint == "completions":
            return allows_continuation(self.request.body)
        return capabilities.prefill and allows_prefill(self.request.body)

    @property
    def usage(self) -> ChatUsage:
        """Usage as reported by the servers, plus an estimate of the tokens that they did not report.

        Its other members are those of the only request, if there was only one: they count for that request alone.
        """
        reports = self._usage_reports
        return ChatUsage(
            prompt_tokens=self.prompt_size if self._prompt_tokens is None else self._prompt_tokens,
            completion_tokens=sum(usage.completion_tokens for usage in reports)
            + sum(choice.tokens - choice.reported_tokens for choice in self.choices),
            cached_tokens=max((usage.cached_tokens for usage in reports), default=0),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in reports),
            extra=self._usage_extra,
        )

    def finish_full_choices(self) -> list[ChatDelta]:
        maximum = self.max_tokens
        full = [choice for choice in self.unfinished if maximum is not None and choice.tokens >= maximum]
        for choice in full:
            choice.finished = True
        return [ChatDelta(choice.index, finish_reason="length") for choice in full]

    def record_usage(
        self, request: ChatRequest, usage: ChatUsage, prefix_tokens: Sequence[int], *, is_resumed: bool
    ) -> None:
        """Record the reported usage of a completed request.

        `prefix_tokens` is, for each choice of the request, the number of delivered tokens sent with it as a prefix,
        which the server counts as part of the prompt. `is_resumed`: another request delivered a part of these choices.
        """
        is_whole = not is_resumed and len(request.choices) == len(self.choices)
        self._usage_extra = usage.extra if is_whole else None
        if not usage.completion_tokens and any(self.choices[index].tokens for index in request.choices):
            # Sent with the first chunk, and never updated: the estimate is better.
            return
        self._usage_reports.append(usage)
        if self._prompt_tokens is None:
            self._prompt_tokens = max(0, usage.prompt_tokens - sum(prefix_tokens))
        for index, count in zip(request.choices, prefix_tokens, strict=True):
            choice = self.choices[index]
            choice.reported_tokens = choice.tokens - count


def _measured(request: ChatRequest) -> tuple[bytes, int]:
    """Return the messages or the prompt as JSON, and its size; of a large request the beginning, and the size of all.

    Then only as many messages are encoded as policies compare.
    """
    given = request.input
    if request.size <= _LARGE_REQUEST or not isinstance(given, list):
        encoded = msgspec.json.encode(given)
        return encoded, len(encoded)
    beginning = b"["
    for item in given:
        if len(beginning) >= MAX_TEXT_HINT:
            break
        beginning += msgspec.json.encode(item) + b","
    return beginning, request.size


def _modalities(messages: Any) -> Iterator[Modality]:
    """Yield the modalities of the parts of messages that are not text, as far as they are known."""
    contents = (message.get("content") for message in messages or () if isinstance(message, dict))
    for content in contents:
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind in _MODALITIES:
                yield _MODALITIES[kind]


def is_deterministic(body: dict[str, Any]) -> bool:
    """Return True if the same request should give the same answer: greedy sampling or a seed."""
    return body.get("temperature") == 0 or body.get("seed") is not None


def allows_prefill(body: dict[str, Any]) -> bool:
    """Return True if a server can continue the answer to this chat request from a prefix.

    That excludes structured outputs and forced tool calls, which a server would start from the beginning, and requests
    that end with an assistant message themselves.
    """
    forced = body.get("tool_choice") not in (None, "none", "auto")
    return _is_plain_text(body) and not forced and body["messages"][-1].get("role") != "assistant"


def allows_continuation(body: dict[str, Any]) -> bool:
    """Return True if the answer to this text completion request can be continued by appending it to the prompt.

    That excludes prompts of token ids, structured outputs, and parameters for which the end of the prompt matters.
    Without `max_tokens` it is not known how many tokens are left: the default is 16 at OpenAI, but not everywhere.
    """
    depends_on_end = body.get("echo") or body.get("suffix") or body.get("logprobs") is not None
    is_text = isinstance(body.get("prompt"), str) and _is_plain_text(body)
    return is_text and not depends_on_end and token_limit(body) is not None


def _is_plain_text(body: dict[str, Any]) -> bool:
    """Return True if the answer may be any text: there is no grammar, schema or other format."""
    given = body.get("response_format") or {"type": "text"}
    response_format = given.get("type") if isinstance(given, dict) else given
    return response_format == "text" and all(body.get(name) is None for name in _STRUCTURED_OUTPUT_PARAMS)
