"""What a request says of the form of its answer -> the grammar that the engine must keep to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.chat.tools import AllowedToolsChoice, NamedTool
from adapter.api.sampling import SamplingRequest
from adapter.errors import BadRequest
from adapter.grammar.json_schema import fault, is_checked, written
from adapter.grammar.output_format import Form, Place, form_of
from adapter.offload import LARGE, aside
from adapter.prompt.from_openai import offered
from adapter.tools import Kind, UnsupportedSchema
from adapter.tools.grammar.lark import as_object
from subnet.generation import Grammar

_ANY: Mapping[str, Any] = {"type": "object"}

_SLOW = 2048
"""Characters of schemas from which on they are checked in a thread: some take ten microseconds each."""


class _Checked(msgspec.Struct, frozen=True):
    """A schema to be checked, and where the request has it."""

    schema: Mapping[str, Any]
    place: Place
    strict: bool
    text: str


async def structure(
    request: ChatCompletionRequest, kind: Kind, special: Mapping[str, int], opened: bool = False
) -> Grammar | None:
    """The grammar that the answer must fit, or None where it may be anything.

    `kind` is how the model writes calls and reasoning, `special` its control tokens (text -> id), `opened` whether
    the answer begins inside reasoning. With tools that may be called, an answer is either calls or fits the form that
    is asked for, or is any text where no form is; calls fit the tools that are strict, and are one at most if the
    request says so. Raises BadRequest for what does not go together, and for a schema that cannot be followed, naming
    the place in it. Schemas of tools that nothing enforces are not looked at.
    """
    form = form_of(request)
    if form is None and not request.tools:
        return None
    must = forced(request)
    if form is not None and must:
        message = f"A 'tool_choice' that forces a tool call cannot be combined with '{form.place.param}'."
        raise _clash(message, form.place.param)
    await _check([*_of_tools(request, must), *_of_form(form)])
    try:
        if form is not None:
            return _answer(form, request, kind, special, opened)
        return _lark(_calls(request, kind, special, opened, must))
    except UnsupportedSchema as error:
        name, *path = error.path
        raise _place_of_tool(request, name).refusal(path, error.reason) from error


async def completion_structure(request: SamplingRequest) -> Grammar | None:
    """The same for a plain prompt, without tools and reasoning."""
    form = form_of(request)
    if form is None:
        return None
    await _check([*_of_form(form)])
    return form.grammar


def forced(request: ChatCompletionRequest) -> bool:
    """Whether the answer must be a call."""
    choice = request.tool_choice
    if isinstance(choice, AllowedToolsChoice):
        return choice.allowed_tools.mode == "required"
    return choice == "required" or isinstance(choice, NamedTool)


def _calls(
    request: ChatCompletionRequest, kind: Kind, special: Mapping[str, int], opened: bool, must: bool
) -> str | None:
    tools, several = parameters(request, must), _several(request)
    if must:
        return kind.grammar(tools, several, special, opened)
    bound = not several or any(tool.function.strict for tool in offered(request))
    return kind.free(tools, several, special, opened) if tools and bound else None


def _answer(
    form: Form, request: ChatCompletionRequest, kind: Kind, special: Mapping[str, int], opened: bool
) -> Grammar:
    """The form, after reasoning where the model reasons, or calls where it may call."""
    body = form.body
    whole = kind.answer(body or '""', special, opened, parameters(request), _several(request))
    if whole is not None and body is None:
        raise _clash(f"'{form.place.param}' cannot be combined with tools or reasoning.", form.place.param)
    return _lark(whole) or form.grammar


def _lark(text: str | None) -> Grammar | None:
    return None if text is None else Grammar("lark", text)


def _several(request: ChatCompletionRequest) -> bool:
    return request.parallel_tool_calls is not False and not isinstance(request.tool_choice, NamedTool)


def parameters(request: ChatCompletionRequest, must: bool = False) -> dict[str, Mapping[str, Any] | None]:
    """Of the tools that may be called. Those that nothing enforces are of any kind."""
    return {
        tool.function.name: tool.function.parameters if must or tool.function.strict else _ANY
        for tool in offered(request)
    }


def _place_of_tool(request: ChatCompletionRequest, name: str) -> Place:
    index = next(index for index, tool in enumerate(request.tools or ()) if tool.function.name == name)
    return Place(f"tools[{index}].function.parameters", f"function '{name}'", "invalid_function_parameters")


def _of_tools(request: ChatCompletionRequest, must: bool) -> Iterator[_Checked]:
    for tool in offered(request):
        strict = bool(tool.function.strict)
        if tool.function.parameters is not None and (strict or must):
            schema = tool.function.parameters if strict else as_object(tool.function.parameters)
            yield _Checked(schema, _place_of_tool(request, tool.function.name), strict, written(schema))


def _of_form(form: Form | None) -> Iterator[_Checked]:
    if form is not None and form.schema is not None:
        yield _Checked(form.schema, form.place, form.strict, form.grammar.text)


async def _check(schemas: Sequence[_Checked]) -> None:
    new = sum(len(one.text) for one in schemas if not is_checked(one.text, one.strict))
    await aside(new * LARGE // _SLOW, _refuse, schemas)


def _refuse(schemas: Sequence[_Checked]) -> None:
    for one in schemas:
        if found := fault(one.schema, one.text, one.strict):
            raise one.place.refusal(found.path, found.reason)


def _clash(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=param, code="invalid_parameter_combination")
