"""One choice of a response, whichever fields the server puts it in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from subnet.chat import ChatDelta
from subnet.errors import WireError
from subnet.protocols.openai.finish import to_finish_reason
from subnet.protocols.openai.openai_logprobs import read_logprobs
from subnet.protocols.openai.prefix_filter import PrefixFilter
from subnet.protocols.openai.tool_calls import ToolCalls

# DeepSeek, vLLM, SGLang and llama-server; OpenRouter, Ollama and newer vLLM; others. Some send the same text in two
# fields.
_REASONING = ("reasoning_content", "reasoning", "thinking")

_CONTENT_ONLY = {"content"}


class Choice:
    """Converts `choices[]` of chunks, or of a whole response, to deltas of choice `number`.

    `repeated_prefix` is the beginning of the answer, if the server was asked to continue it and may send it again.
    """

    def __init__(self, number: int, *, repeated_prefix: str = "", logprobs: bool = False) -> None:
        self.number = number
        self.started = False
        self.finished = False
        self._tool_calls = ToolCalls()
        self._prefix_filter = PrefixFilter(repeated_prefix)
        self._logprobs = logprobs
        self._plain = not repeated_prefix and not logprobs

    def read(self, raw: dict[str, Any]) -> ChatDelta | None:
        """Return the delta of one `choices[]` entry, or None after the finish reason.

        Raises WireError for invalid entries, and NodeError if the server aborted the answer.
        """
        if self.finished:
            return None
        self.started = True
        message = raw.get("delta") or raw.get("message") or {}
        if not isinstance(message, dict):
            raise WireError("invalid delta: expected an object")
        if (
            self._plain
            and message.keys() == _CONTENT_ONLY
            and type(message["content"]) is str
            and not raw.get("finish_reason")
        ):
            # Fast path: nearly every chunk has content only.
            return ChatDelta(self.number, message["content"])
        delta = self._read_message(message)
        if self._logprobs and "logprobs" in raw and not self._prefix_filter.pending:
            delta.logprobs = read_logprobs(raw["logprobs"])
        delta.finish_reason = to_finish_reason(raw.get("finish_reason"), has_calls=bool(self._tool_calls))
        return self._finish(delta) if delta.finish_reason is not None else delta

    def finish(self) -> ChatDelta:
        """Return the last delta of an answer that ended regularly, but without a finish reason."""
        return self._finish(ChatDelta(self.number, finish_reason="tool_calls" if self._tool_calls else "stop"))

    def _read_message(self, message: dict[str, Any]) -> ChatDelta:
        delta = ChatDelta(self.number)
        content = message.get("content")
        if isinstance(content, str):
            delta.text = content
        elif content is not None:
            _read_parts(content, delta)
        delta.text = self._prefix_filter.feed(delta.text)
        for name in _REASONING:
            if not delta.reasoning:
                delta.reasoning = _text(message.get(name))
        delta.refusal = delta.refusal or _text(message.get("refusal"))
        if message.get("tool_calls"):
            delta.calls = self._tool_calls.read(message["tool_calls"])
        elif message.get("function_call"):
            delta.calls = self._tool_calls.read_function(message["function_call"])
        return delta

    def _finish(self, delta: ChatDelta) -> ChatDelta:
        self.finished = True
        self._tool_calls.check()
        delta.text += self._prefix_filter.flush()
        return delta


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
