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
from typing import Any, ClassVar

from tests.vectors import vllm_parsers
from tests.vectors.vllm_parsers import ReasoningParser, Tokenizer, ToolParser
from tests.vectors.vllm_values import DeltaMessage, Fields, FunctionCall, ToolCall, not_offered


class _Missing(type):
    """Class of vLLM that has no counterpart."""

    def __call__(cls, *values: object, **more: object) -> Any:
        return not_offered(cls.__name__)

    def __getattr__(cls, name: str) -> Any:
        return not_offered(f"{cls.__name__}.{name}") if not name.startswith("_") else object.__getattribute__(cls, name)


class Manager:
    """Registry of parsers by name."""

    @staticmethod
    def get_tool_parser(name: str) -> type[ToolParser]:
        return type("NamedToolParser", (ToolParser,), {"name": name})

    @staticmethod
    def get_reasoning_parser(name: str) -> type[ReasoningParser]:
        return type("NamedReasoningParser", (ReasoningParser,), {"name": name})


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
    "get_tokenizer": get_tokenizer,
    "AutoTokenizer": AutoTokenizer,
    "PreTrainedTokenizerBase": Tokenizer,
    "TokenizerLike": Tokenizer,
    **{name: getattr(vllm_parsers, name) for name in vllm_parsers.HELPERS},
    **{
        name: type(name, (Fields,), {})
        for name in (
            *("ChatCompletionRequest", "ChatCompletionToolsParam", "FunctionDefinition", "ResponsesRequest"),
            *("ExtractedToolCallInformation", "ChatCompletionNamedToolChoiceParam", "FunctionTool"),
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
        registered = _registered()
        if name in registered:
            kind = ToolParser if "Tool" in name else ReasoningParser
            return type(name, (kind,), {"name": registered[name]})
        constants = _constants(self.__name__)
        return constants[name] if name in constants else _Missing(name, (), {})


@cache
def _registered() -> Mapping[str, str]:
    """Return the name under which vLLM registers each class of a parser; of several the first."""
    found: dict[str, str] = {}
    for package in ("tool_parsers", "reasoning"):
        for node in ast.walk(ast.parse(Path("vllm", package, "__init__.py").read_text())):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple):
                        found.setdefault(ast.literal_eval(value)[1], str(key.value))
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
