"""Empty modules in the place of vLLM's, with the gateway's parsers in them."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tests.vectors import vllm_parsers
from tests.vectors.vllm_parsers import BaseParser, ReasoningParser, Tokenizer, ToolParser
from tests.vectors.vllm_values import (
    DeltaMessage,
    ExtractedToolCallInformation,
    Fields,
    FunctionCall,
    ToolCall,
    not_offered,
)

P = TypeVar("P", bound=BaseParser)


class _Missing(type):
    """Class of vLLM that has no counterpart."""

    def __call__(cls, *values: object, **more: object) -> Any:
        return not_offered(cls.__name__)

    def __instancecheck__(cls, instance: object) -> bool:
        return bool(not_offered(f"an instance of {cls.__name__}"))

    def __getattr__(cls, name: str) -> Any:
        return not_offered(f"{cls.__name__}.{name}") if not name.startswith("_") else object.__getattribute__(cls, name)


@cache
def parser_class(kind: type[P], class_name: str) -> type[P]:
    """Return the one class of the parser that vLLM registers as `class_name`, under its first name."""
    names = _registered()["tool_parsers" if kind is ToolParser else "reasoning"]
    first = next((name for name, registered in names.items() if registered == class_name), class_name)
    return type(class_name, (kind,), {"name": first})


class Manager:
    """Registry of parsers by name."""

    @staticmethod
    def get_tool_parser(name: str) -> type[ToolParser]:
        return parser_class(ToolParser, _registered()["tool_parsers"].get(name, name))

    @staticmethod
    def get_reasoning_parser(name: str) -> type[ReasoningParser]:
        return parser_class(ReasoningParser, _registered()["reasoning"].get(name, name))


def get_tokenizer(*names: object, **options: object) -> Tokenizer:
    return Tokenizer()


class AutoTokenizer:
    from_pretrained = staticmethod(get_tokenizer)


_GIVEN: Mapping[str, Any] = {
    "ToolParser": ToolParser,
    "ReasoningParser": ReasoningParser,
    "ToolParserManager": Manager,
    "ReasoningParserManager": Manager,
    "FunctionCall": FunctionCall,
    "DeltaFunctionCall": FunctionCall,
    "ToolCall": ToolCall,
    "DeltaToolCall": ToolCall,
    "DeltaMessage": DeltaMessage,
    "ExtractedToolCallInformation": ExtractedToolCallInformation,
    "get_tokenizer": get_tokenizer,
    "AutoTokenizer": AutoTokenizer,
    "PreTrainedTokenizerBase": Tokenizer,
    "TokenizerLike": Tokenizer,
    **{name: getattr(vllm_parsers, name) for name in vllm_parsers.HELPERS},
    **{
        name: type(name, (Fields,), {})
        for name in (
            *("ChatCompletionRequest", "ChatCompletionToolsParam", "FunctionDefinition", "ResponsesRequest"),
            *("ChatCompletionNamedToolChoiceParam", "FunctionTool"),
        )
    },
}


class _Module(types.ModuleType):
    __path__: ClassVar[list[str]] = []  # type: ignore[misc]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _GIVEN:
            return _GIVEN[name]
        if name in _registered()["tool_parsers"].values():
            return parser_class(ToolParser, name)
        if name in _registered()["reasoning"].values():
            return parser_class(ReasoningParser, name)
        constants = _constants(self.__name__)
        return constants[name] if name in constants else _Missing(name, (), {})


@cache
def _registered() -> Mapping[str, Mapping[str, str]]:
    """Return the classes of parsers that vLLM registers, by package and name."""
    found: dict[str, dict[str, str]] = {"tool_parsers": {}, "reasoning": {}}
    for package, names in found.items():
        for node in ast.walk(ast.parse(Path("vllm", package, "__init__.py").read_text())):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple):
                        names[str(key.value)] = ast.literal_eval(value)[1]
    return found


@cache
def _constants(module: str) -> Mapping[str, object]:
    """Return the texts that a module of vLLM names at its top level."""
    path = Path(*module.split(".")).with_suffix(".py")
    if not path.exists():
        return {}
    return dict(_literals(ast.parse(path.read_text())))


def _literals(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield from ((target.id, node.value.value) for target in node.targets if isinstance(target, ast.Name))


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        own = name.partition(".")[0] in ("vllm", "transformers")
        helper = name in ("tests.tool_parsers.utils", "tests.reasoning.utils")
        return ModuleSpec(name, self, is_package=own) if own or helper else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def install() -> None:
    """Put the modules in the place of vLLM's."""
    sys.meta_path.insert(0, _Finder())
