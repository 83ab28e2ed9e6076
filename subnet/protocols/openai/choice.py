"""One choice of an answer, from whatever a server sends of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from subnet.chat import ChatDelta
from subnet.errors import WireError
from subnet.protocols.openai.calls import Calls
from subnet.protocols.openai.finish import finish_reason
from subnet.protocols.openai.logprobs import read_logprobs
from subnet.protocols.openai.repeated import Repeated

# DeepSeek, vLLM, SGLang and llama-server; OpenRouter, Ollama and newer vLLM; others. Some send the same in two of them.
_REASONING = ("reasoning_content", "reasoning", "thinking")

_TEXT_ALONE = {"content"}


class Choice:
    """Reads `choices[]` of chunks, or of a whole answer, as deltas of choice `number`.

    `begun` is the text that the server was to go on with, if it may send that again.
    """

    def __init__(self, number: int, *, begun: str = "", logprobs: bool = False) -> None:
        self.number = number
        self.seen = False
        self.finished = False
        self._calls = Calls()
        self._repeated = Repeated(begun)
        self._logprobs = logprobs
        self._plain = not begun and not logprobs

    def read(self, raw: dict[str, Any]) -> ChatDelta | None:
        """None for what comes after the end. Raises WireError, or NodeError for an answer that was broken off."""
        if self.finished:
            return None
        self.seen = True
        said = raw.get("delta") or raw.get("message") or {}
        if not isinstance(said, dict):
            raise WireError("invalid delta: expected an object")
        if self._plain and said.keys() == _TEXT_ALONE and type(said["content"]) is str and not raw.get("finish_reason"):
            # Nearly all are so.
            return ChatDelta(self.number, said["content"])
        delta = self._said(said)
        if self._logprobs and "logprobs" in raw and not self._repeated.pending:
            delta.logprobs = read_logprobs(raw["logprobs"])
        delta.finish_reason = finish_reason(raw.get("finish_reason"), called=bool(self._calls))
        return self._end(delta) if delta.finish_reason is not None else delta

    def end(self) -> ChatDelta:
        """For an answer that ended as it should, but did not say why."""
        return self._end(ChatDelta(self.number, finish_reason="tool_calls" if self._calls else "stop"))

    def _said(self, said: dict[str, Any]) -> ChatDelta:
        delta = ChatDelta(self.number)
        content = said.get("content")
        if isinstance(content, str):
            delta.text = content
        elif content is not None:
            _read_parts(content, delta)
        delta.text = self._repeated.decode(delta.text)
        for name in _REASONING:
            if not delta.reasoning:
                delta.reasoning = _text(said.get(name))
        delta.refusal = delta.refusal or _text(said.get("refusal"))
        if said.get("tool_calls"):
            delta.calls = self._calls.read(said["tool_calls"])
        elif said.get("function_call"):
            delta.calls = self._calls.read_function(said["function_call"])
        return delta

    def _end(self, delta: ChatDelta) -> ChatDelta:
        self.finished = True
        self._calls.check()
        delta.text += self._repeated.flush()
        return delta


def _read_parts(content: Any, delta: ChatDelta) -> None:
    """Content as a list of parts: text, and at Mistral {"type": "thinking", "thinking": [parts]}."""
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
