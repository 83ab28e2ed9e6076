"""The gateway's parsers, with the methods of vLLM's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from adapter.tools import FORMATS, REASONING, ModelFormat, Parser, select_format
from tests.vectors.vllm_values import (
    Collected,
    DeltaMessage,
    ExtractedToolCallInformation,
    Fields,
    ToolCall,
    not_offered,
)

TOOL_FORMATS: Mapping[str, str] = {
    "deepseek_v31": "deepseek",
    "ernie45": "hermes",
    "glm45": "glm47",
    "granite-20b-fc": "granite_20b",
    "granite4": "hermes",
    "hunyuan_a13b": "hunyuan",
    "internlm": "internlm2",
    "lfm2": "pythonic",
    "llama4_json": "llama3_json",
    "llama4_pythonic": "pythonic",
    "mimo": "hermes",
    "phi4_mini_json": "phi4_mini",
    "poolside_v1": "glm",
    "qwen3_xml": "qwen3_coder",
    "step3p5": "qwen3_coder",
    "gigachat3": "gigachat",
}
"""The gateway's names of the formats that vLLM calls otherwise."""

TAGS: Mapping[str, str] = {
    "gemma4": "gemma4",
    "granite": "granite",
    "kimi_k3": "kimi_k3",
    "minimax_m3": "minimax",
    "seed_oss": "seed",
}
"""The gateway's names of tags of reasoning; all others are "think"."""

IN_REASONING = frozenset(
    {
        *("deepseek_r1", "deepseek_v4", "ernie45", "glm45", "glm47", "granite_thinking_parser", "holo2", "hy_v3"),
        *("k2_horizon", "kimi_k2", "kimi_k3", "minimax_m2", "nemotron_v3", "olmo3", "qwen3", "step3", "step3p5"),
    }
)
"""Parsers of models whose prompts open the reasoning."""


_NAME = re.compile(r'"name": *"([^"]+)"')


class AnyTools(dict[str, Any]):
    """Tools that are not known: all may be called, with any arguments."""

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: object, default: Any = None) -> Any:
        return {}

    def __missing__(self, name: str) -> Any:
        return {}


def _schemas(tools: object, text: str) -> Mapping[str, Any]:
    """Return the schemas of the tools by their names; if there are none, those that `text` calls may be called."""
    found = {}
    for tool in tools if isinstance(tools, list | tuple) else ():
        tool = Fields(**tool) if isinstance(tool, dict) else tool
        function = getattr(tool, "function", None) or tool
        found[str(function.name)] = function.parameters or {}
    return found or AnyTools.fromkeys(_NAME.findall(text), {})


_FIRST_LONGER = 0x110000
_LONGER: list[str] = []


def _token(number: int) -> str:
    return chr(number) if number < _FIRST_LONGER else _LONGER[number - _FIRST_LONGER]


class Vocabulary(dict[str, int]):
    """Vocabulary in which every text is a token: single characters have their code points."""

    def __contains__(self, text: object) -> bool:
        return True

    def __missing__(self, text: str) -> int:
        if len(text) == 1:
            return ord(text)
        if text not in _LONGER:
            _LONGER.append(text)
        return _FIRST_LONGER + _LONGER.index(text)

    def get(self, text: str, default: Any = None) -> Any:
        return self[text]


class Tokenizer:
    """Tokenizer of single characters."""

    is_fast = True

    def __getattr__(self, name: str) -> Any:
        return not_offered(f"tokenizer.{name}")

    def add_tokens(self, *texts: object, **options: object) -> int:
        return 0

    @property
    def tokenizer(self) -> Tokenizer:
        return self

    def get_vocab(self) -> Vocabulary:
        return Vocabulary()

    vocab = property(get_vocab)

    def tokenize(self, text: str, **options: object) -> list[str]:
        return list(text)

    def encode(self, text: str, **options: object) -> list[int]:
        return [ord(char) for char in text]

    def decode(self, ids: Sequence[int] | int, **options: object) -> str:
        return "".join(_token(each) for each in ([ids] if isinstance(ids, int) else ids))

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        return "".join(tokens)

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        return Vocabulary()[tokens] if isinstance(tokens, str) else [Vocabulary()[token] for token in tokens]


_OFF = (False, "no_think")
# The engine ends an answer there.
_EOS = "</s>"


class BaseParser:
    """Parser as vLLM's, of the class attribute `name`."""

    name: ClassVar[str] = ""

    def __init__(self, tokenizer: object = None, tools: object = None, **options: object) -> None:
        self.model_tokenizer = tokenizer
        self.tools = tools
        kwargs: Mapping[str, Any] = options.get("chat_template_kwargs") or {}  # type: ignore[assignment]
        self.thinks = kwargs.get("enable_thinking", kwargs.get("thinking", kwargs.get("reasoning_effort"))) not in _OFF
        self.vocab = Vocabulary()
        self._own: Parser | None = None

    def __getattr__(self, name: str) -> Any:
        return not_offered(name)

    def parser(self, request: object, text: str) -> Parser:
        """Return the parser for an answer that begins with `text`."""
        raise NotImplementedError

    def whole(self, text: str, request: object) -> Collected:
        parser = self.parser(request, text)
        return Collected([*parser.decode(text.removesuffix(_EOS)), *parser.flush()])

    def stream(self, deltas: Sequence[str], request: object) -> Collected:
        text = "".join(deltas)
        parser = self.parser(request, text)
        pieces = list(text.removesuffix(_EOS)) if text.endswith(_EOS) else deltas
        return Collected([*(part for piece in pieces for part in parser.decode(piece)), *parser.flush()])

    def step(self, previous: str, current: str, delta: str, request: object) -> DeltaMessage | None:
        if self._own is None or (not previous and current == delta):
            self._own = self.parser(request, delta)
        return Collected(self._own.decode(delta)).delta()


class ToolParser(BaseParser):
    def parser(self, request: object, text: str) -> Parser:
        name = "gigachat3_1" if "<|function_call|>" in text else TOOL_FORMATS.get(self.name, self.name)
        assert name in FORMATS, f"the format {self.name} is not known"
        tools = _schemas(self.tools or getattr(request, "tools", None), text)
        parser = select_format("", name, "none").parser(tools)
        assert parser is not None
        return parser

    def extract_tool_calls(self, model_output: str, request: object = None) -> Fields:
        found = self.whole(model_output, request)
        calls = list(found.calls.values())
        return ExtractedToolCallInformation(tools_called=bool(calls), tool_calls=calls, content=found.content or None)

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        *ids: object,
        request: object = None,
        **more: object,
    ) -> DeltaMessage | None:
        return self.step(previous_text, current_text, delta_text, request)


class ReasoningParser(BaseParser):
    def parser(self, request: object, text: str) -> Parser:
        name = TAGS.get(self.name, "think")
        assert name in REASONING, f"the reasoning of {self.name} is not known"
        parser = ModelFormat(None, REASONING[name]).parser(None, self.thinks and self.name in IN_REASONING)
        assert parser is not None
        return parser

    def extract_reasoning(self, model_output: str, request: object = None) -> tuple[str | None, str | None]:
        found = self.whole(model_output, request)
        return found.reasoning or None, found.content or None

    def extract_reasoning_streaming(
        self, previous_text: str, current_text: str, delta_text: str, *ids: object, **more: object
    ) -> DeltaMessage | None:
        return self.step(previous_text, current_text, delta_text, None)

    def _by_tokens(self, *_: object, **more: object) -> Any:
        pytest.skip(BY_TOKENS)

    is_reasoning_end = is_reasoning_end_streaming = extract_content_ids = count_reasoning_tokens = _by_tokens


BY_TOKENS = "the text is as expected; what follows is about token ids"


def run_tool_extraction(
    parser: BaseParser, text: Any, request: object = None, streaming: bool = False, **options: object
) -> tuple[str | None, list[ToolCall]]:
    found = parser.stream(text, request) if streaming else parser.whole("".join(text), request)
    return found.content or None, list(found.calls.values())


def run_tool_extraction_streaming(parser: BaseParser, deltas: Any, request: object = None, **options: object) -> Fields:
    found = parser.stream(deltas, request)
    return Fields(other_content=found.content, tool_calls=list(found.calls.values()))


def run_tool_extraction_nonstreaming(parser: ToolParser, text: str, request: object = None) -> Fields:
    return parser.extract_tool_calls(text, request)


def run_reasoning_extraction_streaming(parser: BaseParser, deltas: Sequence[str], request: object = None) -> Fields:
    found = parser.stream(deltas, request)
    return Fields(reasoning=found.reasoning or None, other_content=found.content or None)


def detokenize_incrementally(tokenizer: object, all_input_ids: Sequence[int], *state: Any, **more: Any) -> Any:
    text = _token(all_input_ids[-1])
    return [text], text, 0, 0


def split_string_into_token_deltas(tokenizer: object, text: str) -> list[str]:
    return list(text)


def run_reasoning_extraction(
    parser: BaseParser, deltas: Sequence[str], request: object = None, streaming: bool = False
) -> tuple[str | None, str | None]:
    found = parser.stream(deltas, request) if streaming else parser.whole("".join(deltas), request)
    return found.reasoning or None, found.content or None


HELPERS = (
    *("run_tool_extraction", "run_tool_extraction_streaming", "run_tool_extraction_nonstreaming"),
    *("run_reasoning_extraction", "run_reasoning_extraction_streaming"),
    *("detokenize_incrementally", "split_string_into_token_deltas"),
)
"""Names of the functions above that stand for helpers of vLLM and of its tests."""
