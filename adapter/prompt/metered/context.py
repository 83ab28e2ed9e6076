"""Variables of a rendering, and the calls of functions that templates make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import safe_range
from jinja2.utils import Cycler, Joiner, Namespace, generate_lorem_ipsum

from adapter.prompt.metered.budget import Budget
from adapter.prompt.metered.methods import call_method
from adapter.prompt.metered.operators import Format, call_format

MAX_MESSAGE = 2000
"""Maximum number of characters of a message with which a template rejects a conversation."""


class MeteredContext(Context):
    """Variables of a rendering, and its `budget`."""

    budget: Budget

    def derived(self, locals: dict[str, Any] | None = None) -> MeteredContext:
        result = super().derived(locals)
        assert isinstance(result, MeteredContext)
        result.budget = self.budget
        return result

    def call(self, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls. Raises SecurityError for what templates cannot call."""
        kind = type(obj)
        function: Callable[..., Any]
        if kind is BuiltinMethodType:
            return call_method(self.budget, obj, args, kwargs)
        if kind is Macro:
            return obj(self.eval_ctx, *args, **kwargs)
        if kind is FunctionType:
            function = _FUNCTIONS.get(obj, _call)
        elif kind is MethodType:
            function = _call_method if isinstance(obj.__self__, str) else _FUNCTIONS.get(obj.__func__, _call)
        else:
            function = _CLASSES.get(obj, _refuse) if kind is type else _CALLABLES.get(kind, _refuse)
        return function(self, obj, *args, **kwargs)


def _call(context: MeteredContext, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    context.budget.weigh(args)
    context.budget.weigh(kwargs)
    return context.budget.made(function(*args, **kwargs))


def _call_method(context: MeteredContext, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return call_method(context.budget, method, args, kwargs)


def _call_freely(context: MeteredContext, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _call_loop(context: MeteredContext, loop: LoopContext, iterable: Iterable[Any]) -> Any:
    return loop(context.budget.items(iterable, 4))


def _call_block(context: MeteredContext, block: BlockReference) -> str:
    return context.budget.concat(block._stack[block._depth](block._context))


def _call_format(context: MeteredContext, method: Format, *args: Any, **kwargs: Any) -> str:
    return call_format(method, context.budget, args, kwargs)


def _refuse(context: MeteredContext, obj: Any, *args: Any, **kwargs: Any) -> NoReturn:
    if not callable(obj):
        raise TypeError(f"a value of the type {type(obj).__name__} cannot be called")
    raise SecurityError(f"templates cannot call a value of the type {type(obj).__name__}")


def _raise_exception(context: MeteredContext, function: object, message: Any = "") -> NoReturn:
    raise TemplateError(context.budget.text(message)[:MAX_MESSAGE])


def _lorem_ipsum(
    context: MeteredContext, function: Callable[..., Any], n: int = 5, html: bool = True, min: int = 20, max: int = 100
) -> Any:
    # Each word has about six characters, and is chosen in Python; each paragraph ends with a full stop.
    words = n * (abs(max) + 1)
    context.budget.ensure(6 * words)
    context.budget.spend(20 * words)
    return context.budget.made(function(n, html, min, max))


def _strftime(context: MeteredContext, function: Callable[..., Any], layout: str) -> Any:
    # The result has at most 256 times the length of the layout.
    context.budget.ensure(256 * len(layout))
    return context.budget.made(function(layout))


def _namespace(context: MeteredContext, kind: type[Namespace], *args: Any, **values: Any) -> Namespace:
    context.budget.spend(2 * len(values))
    return kind(*(_dict(context, dict, each) for each in args), **values)


def _dict(context: MeteredContext, function: object, *args: Any, **values: Any) -> dict[Any, Any]:
    pairs = [each if isinstance(each, dict) else context.budget.listed(each) for each in args]
    context.budget.weigh(pairs)
    return context.budget.made(dict(*pairs, **values))  # type: ignore[no-any-return]


def _fromkeys(context: MeteredContext, function: object, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
    keys = context.budget.listed(keys, 4)
    context.budget.weigh(keys)
    return context.budget.made(dict.fromkeys(keys, value))  # type: ignore[no-any-return]


class _Dict:
    """The function `dict` of templates, with its method `fromkeys`."""

    def fromkeys(self) -> None:
        """Is found here by templates; see _fromkeys."""


def _raise() -> None:
    """Is the function `raise_exception` of templates; see _raise_exception."""


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


_FUNCTIONS: Mapping[object, Callable[..., Any]] = {
    safe_range: _call_freely,
    generate_lorem_ipsum: _lorem_ipsum,
    _raise: _raise_exception,
    _strftime_now: _strftime,
    _Dict.fromkeys: _fromkeys,
}
_CALLABLES: Mapping[object, Callable[..., Any]] = {
    LoopContext: _call_loop,
    BlockReference: _call_block,
    Format: _call_format,
    Joiner: _call_freely,
    Undefined: _call_freely,
    _Dict: _dict,
}
_CLASSES: Mapping[object, Callable[..., Any]] = {Namespace: _namespace, Cycler: _call_freely, Joiner: _call_freely}

GLOBALS: Mapping[str, Any] = {"dict": _Dict(), "raise_exception": _raise, "strftime_now": _strftime_now}
"""Functions that Hugging Face adds to those of Jinja."""
