"""One choice of a response, whichever fields the server puts it in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from subnet.chat import ChatDelta, ChatFinishReason
from subnet.errors import NodeError, WireError
from subnet.http.lenient_json import SurrogateJoiner
from subnet.protocols.openai.extra_members import MemberReader
from subnet.protocols.openai.openai_logprobs import TextLogprobsReader, read_logprobs
from subnet.protocols.openai.tool_calls import ToolCalls
from subnet.stop_scanner import StopScanner

# DeepSeek, vLLM, SGLang and llama-server; OpenRouter, Ollama and newer vLLM; others. Some send the same text in two
# fields.
_REASONING = ("reasoning_content", "reasoning", "thinking")

_CONTENT_ONLY = {"content"}
# Members that are read; all others are passed on.
_MESSAGE_MEMBERS = frozenset({"role", "content", "refusal", "tool_calls", "function_call", *_REASONING})
_CHOICE_MEMBERS = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})

# Finish reasons: OpenAI's own; TGI's, Mistral's, Zhipu's, and those of Anthropic- and Gemini-compatible servers.
_SYNONYMS: Mapping[ChatFinishReason, str] = {
    "stop": "stop eos eos_token end_turn stop_sequence stop_token end complete completed finished",
    "length": "length max_tokens max_length max_output_tokens model_length model_context_window_exceeded",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "content_filter": "content_filter safety recitation prohibited_content blocklist spii refusal sensitive",
}
_REASONS = {name: reason for reason, names in _SYNONYMS.items() for name in names.split()}
# vLLM and SGLang: abort. OpenRouter: error. DeepSeek: insufficient_system_resource.
_ABORTED = frozenset({"abort", "aborted", "cancelled", "error", "insufficient_system_resource"})


class Choice:
    """Converts `choices[]` of chunks, or of a whole response, to deltas of choice `number`.

    `repeated_prefix` is the beginning of the answer, if the server was asked to continue it and may send it again.
    `stops` are the stop strings, if the server may send the one that ended the answer.
    """

    def __init__(
        self, number: int, *, repeated_prefix: str = "", logprobs: bool = False, stops: Sequence[str] = ()
    ) -> None:
        self.number = number
        self.started = False
        self.finished = False
        self._reason: str = "stop"
        self._tool_calls = ToolCalls()
        self._message_members = MemberReader(_MESSAGE_MEMBERS)
        self._choice_members = MemberReader(_CHOICE_MEMBERS)
        self._prefix_filter = PrefixFilter(repeated_prefix)
        self._logprobs = logprobs
        self._stop_scanner = StopScanner(stops) if stops else None
        self._plain = not repeated_prefix and not logprobs and not stops
        self._halves = SurrogateJoiner()

    def read(self, raw: dict[str, Any], *, escaped: bool = False) -> ChatDelta | None:
        """Return the delta of one `choices[]` entry, or None without content. Its finish reason is for `finish`.

        `escaped`: its JSON has \\u escapes, so its texts may contain halves of surrogate pairs.

        Raises WireError for invalid entries, and NodeError if the server aborted the answer.
        """
        self.started = True
        if escaped or self._halves.pending:
            raw = self._halves.join(raw)
        message = raw.get("delta") or raw.get("message") or {}
        if not isinstance(message, dict):
            raise WireError("invalid delta: expected an object")
        if (
            self._plain
            and message.keys() == _CONTENT_ONLY
            and type(message["content"]) is str
            and not raw.get("finish_reason")
            and raw.keys() <= _CHOICE_MEMBERS
        ):
            # Fast path: nearly every chunk has content only.
            return ChatDelta(self.number, message["content"])
        delta = self._read_message(message)
        delta.extra = self._message_members.read(message)
        if _has_custom_calls(message.get("tool_calls")):
            delta.extra = {**(delta.extra or {}), "tool_calls": message["tool_calls"]}
        delta.choice_extra = self._choice_members.read(raw)
        if self._logprobs and "logprobs" in raw and not self._prefix_filter.pending:
            delta.logprobs = self._read_logprobs(raw["logprobs"])
        if to_finish_reason(raw.get("finish_reason"), has_calls=False) is None:
            return delta
        self.finished, self._reason = True, raw["finish_reason"]
        return delta if delta.tokens else None

    @property
    def takes_text(self) -> bool:
        """True if an entry that has only text is a ChatText with that text, until the next call of `read`."""
        return self.started and self._plain and not self._halves.pending

    def finish(self) -> ChatDelta:
        """Return the last delta, at the end of the response. Without a finish reason it is "stop", or "tool_calls"."""
        delta = ChatDelta(self.number, calls=self._tool_calls.finish())
        text = (self._halves.flush(("delta", "content")), self._halves.flush(("message", "content")))
        delta.text = self._prefix_filter.flush() + "".join(text)
        if self._stop_scanner is not None:
            delta.text = self._stop_scanner.decode(delta.text) + self._stop_scanner.flush()
            self._reason = self._reason if self._stop_scanner.stopped is None else "stop"
        delta.finish_reason = to_finish_reason(self._reason, has_calls=bool(self._tool_calls))
        return delta

    def _read_logprobs(self, value: Any) -> list[dict[str, Any]] | None:
        return read_logprobs(value)

    def _read_message(self, message: dict[str, Any]) -> ChatDelta:
        delta = ChatDelta(self.number)
        content = message.get("content")
        if isinstance(content, str):
            delta.text = content
        elif content is not None:
            _read_parts(content, delta)
        delta.text = self._prefix_filter.feed(delta.text)
        if self._stop_scanner is not None:
            delta.text = self._stop_scanner.decode(delta.text)
        for name in _REASONING:
            if not delta.reasoning:
                delta.reasoning = _text(message.get(name))
        delta.refusal = delta.refusal or _text(message.get("refusal"))
        if message.get("tool_calls") and not _has_custom_calls(message["tool_calls"]):
            delta.calls = self._tool_calls.read(message["tool_calls"])
        elif message.get("function_call"):
            delta.calls = self._tool_calls.read_function(message["function_call"])
        return delta


class TextChoice(Choice):
    """Choice of a text completion, with its `text` directly in `choices[]`."""

    def __init__(
        self, number: int, *, repeated_prefix: str = "", logprobs: bool = False, stops: Sequence[str] = ()
    ) -> None:
        super().__init__(number, repeated_prefix=repeated_prefix, logprobs=logprobs, stops=stops)
        self._logprobs_reader = TextLogprobsReader()

    def read(self, raw: dict[str, Any], *, escaped: bool = False) -> ChatDelta | None:
        others, text = {name: value for name, value in raw.items() if name != "text"}, raw.get("text")
        if not isinstance(text, str | None):
            raise WireError("invalid text: expected a string")
        return super().read({**others, "delta": {"content": text}}, escaped=escaped)

    def _read_logprobs(self, value: Any) -> list[dict[str, Any]] | None:
        return self._logprobs_reader.read(value)


def _has_custom_calls(calls: Any) -> bool:
    """Return whether there are calls of custom tools, which have an input instead of a function: they are passed on."""
    return isinstance(calls, list) and any(isinstance(call, dict) and "custom" in call for call in calls)


def _read_parts(content: Any, delta: ChatDelta) -> None:
    """Read content that is a list of parts: text, and for Mistral {"type": "thinking", "thinking": [parts]}."""
    if not isinstance(content, list):
        raise WireError("invalid content: expected a string or a list of parts")
    for kind, text in _parts(content):
        if kind in ("thinking", "reasoning"):
            delta.reasoning += text
        elif kind == "refusal":
            delta.refusal += text
        else:
            delta.text += text


def _parts(parts: list[Any]) -> Iterator[tuple[str, str]]:
    for part in parts:
        if isinstance(part, str):
            yield "text", part
        elif not isinstance(part, dict):
            raise WireError("invalid content part: expected an object")
        else:
            kind = _text(part.get("type"))
            inner = part.get(kind, part.get("text"))
            texts = (
                [each.get("text") for each in inner if isinstance(each, dict)] if isinstance(inner, list) else [inner]
            )
            yield kind, "".join(map(_text, texts))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def to_finish_reason(value: object, *, has_calls: bool) -> ChatFinishReason | None:
    """Convert a server's finish reason to OpenAI's; None if the answer is not finished.

    An unknown reason counts as "stop", and "stop" after tool calls as "tool_calls". Raises NodeError if the server
    aborted the answer.
    """
    if not isinstance(value, str) or not value:
        return None
    name = value.lower().replace("-", "_")
    if name in _ABORTED:
        raise NodeError(f"the server aborted the answer: {value[:100]}")
    reason = _REASONS.get(name, "stop")
    return "tool_calls" if has_calls and reason == "stop" else reason


class PrefixFilter:
    """Removes `prefix` from the start of a text that arrives in parts, if the text starts with all of it.

    `pending` is True until that is known.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._held = ""

    @property
    def pending(self) -> bool:
        return bool(self._prefix)

    def feed(self, text: str) -> str:
        """Return the text that is certainly new."""
        if not self._prefix:
            return text
        self._held += text
        if self._prefix.startswith(self._held) and self._held != self._prefix:
            return ""
        new = self._held.removeprefix(self._prefix)
        self._prefix = self._held = ""
        return new

    def flush(self) -> str:
        """Return the text held back at the end: part of the prefix alone is not a repetition."""
        held, self._held, self._prefix = self._held, "", ""
        return held
