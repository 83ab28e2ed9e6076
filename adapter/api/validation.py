"""What types and ranges cannot say of a request: what goes together, and what does not. All raise BadRequest."""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter

from adapter.api.chat.messages import AssistantMessage, AudioPart, FilePart, ImagePart, Message
from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.chat.tools import AllowedToolsChoice, NamedTool
from adapter.api.completions.types import CompletionRequest
from adapter.api.embeddings.types import EmbeddingRequest
from adapter.api.inputs import MOST_INPUTS, Input, count, odd_one
from adapter.api.sampling import SamplingRequest
from adapter.api.tokenize.types import TokenizeRequest
from adapter.errors import BadRequest

_STRUCTURES = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
_NO_STRUCTURES = (None,) * len(_STRUCTURES)
_structures = attrgetter(*_STRUCTURES)

MODALITIES = {ImagePart: "image", AudioPart: "audio", FilePart: "file"}
"""What a model must understand, beside text, to be given a part."""


def check_chat(request: ChatCompletionRequest) -> None:
    _check_sampling(request, request.limit)
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise _clash(message, "max_tokens")
    if request.top_logprobs and not request.logprobs:
        raise _clash("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", "top_logprobs")
    _check_messages(request.messages)
    if request.tool_choice not in (None, "none", "auto"):
        _check_tool_choice(request)


def check_completion(request: CompletionRequest) -> None:
    _check_sampling(request, request.limit)
    _check_input("prompt", request.prompt)
    most = MOST_INPUTS // count(request.prompt)
    if (request.n or 1) > most:
        raise _wrong("n", f"expected at most {most} for this number of prompts, but got {request.n}")
    if request.best_of is None:
        return
    if request.best_of < (request.n or 1):
        raise _wrong("best_of", f"expected at least 'n', which is {request.n or 1}, but got {request.best_of}")
    if request.best_of > most:
        raise _wrong("best_of", f"expected at most {most} for this number of prompts, but got {request.best_of}")
    if request.best_of > 1 and request.stream:
        raise _clash("Streaming is not supported when 'best_of' is greater than 1.", "best_of")


def check_embedding(request: EmbeddingRequest) -> None:
    _check_input("input", request.input)
    if "" in request.inputs:
        place = "input" if isinstance(request.input, str) else f"input[{request.inputs.index('')}]"
        raise _wrong(place, "expected a non-empty string")


def check_tokenize(request: TokenizeRequest) -> None:
    if request.prompt is None and request.messages is None:
        message = "Missing required parameter: 'prompt' or 'messages'."
        raise BadRequest(message, param="prompt", code="missing_required_parameter")
    if request.prompt is not None and request.messages is not None:
        raise _clash("Setting 'prompt' and 'messages' at the same time is not supported.", "prompt")
    _check_messages(request.messages or [])


def check_modalities(messages: Collection[Message], understood: Collection[str]) -> None:
    """Refuses the first part that needs more than text and what is `understood`: of "image", "audio" and "file"."""
    for index, said in enumerate(messages):
        if isinstance(said.content, str) or said.content is None:
            continue
        for number, part in enumerate(said.content):
            modality = MODALITIES.get(type(part))
            if modality is not None and modality not in understood:
                kind = part.__struct_config__.tag
                raise _wrong(
                    f"messages[{index}].content[{number}].type",
                    f"this model does not support content parts of type '{kind}'",
                )


def _check_sampling(request: SamplingRequest, limit: int | None) -> None:
    if request.stream_options is not None and not request.stream:
        raise _clash("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if request.min_tokens and limit is not None and request.min_tokens > limit:
        why = f"expected at most {limit}, the maximum number of tokens to generate, but got {request.min_tokens}"
        raise _wrong("min_tokens", why)
    _check_structure(request)


def _check_structure(request: SamplingRequest) -> None:
    values = _structures(request)
    if values == _NO_STRUCTURES:
        return
    given = [name for name, value in zip(_STRUCTURES, values, strict=True) if value is not None]
    if len(given) > 1:
        raise _clash(f"Setting '{given[0]}' and '{given[1]}' at the same time is not supported.", given[1])
    wanted = request.structured_outputs
    if wanted is not None:
        forms = [name for name in wanted.__struct_fields__ if getattr(wanted, name) not in (None, False)]
        if len(forms) != 1:
            among = ", ".join(wanted.__struct_fields__)
            raise _wrong("structured_outputs", f"exactly one of {among} must be set, got {len(forms)}")


def _check_messages(messages: Collection[Message]) -> None:
    for index, said in enumerate(messages):
        if type(said) is AssistantMessage and said.content is None and not said.tool_calls and said.refusal is None:
            place = f"messages[{index}].content"
            message = f"Invalid type for '{place}': expected a string or an array, but got null instead."
            raise BadRequest(message, param=place, code="invalid_type")


def _check_tool_choice(request: ChatCompletionRequest) -> None:
    if not request.tools:
        raise _clash("The 'tool_choice' parameter is only allowed when 'tools' are specified.", "tool_choice")
    choice, known = request.tool_choice, {tool.function.name for tool in request.tools}
    if isinstance(choice, NamedTool) and choice.function.name not in known:
        raise _no_such_tool("tool_choice", choice.function.name)
    if isinstance(choice, AllowedToolsChoice):
        for index, tool in enumerate(choice.allowed_tools.tools):
            if tool.function.name not in known:
                raise _no_such_tool(f"tool_choice.allowed_tools.tools[{index}]", tool.function.name)


def _no_such_tool(place: str, name: str) -> BadRequest:
    return _wrong(f"{place}.function.name", f"'{name[:64]}' is not in 'tools'")


def _check_input(name: str, given: Input) -> None:
    if isinstance(given, str):
        return
    odd = odd_one(given)
    if odd is not None:
        raise BadRequest(
            f"Invalid type for '{name}[{odd}]': expected the same type as '{name}[0]'.",
            param=f"{name}[{odd}]",
            code="invalid_type",
        )
    if count(given) > MOST_INPUTS:
        raise _wrong(name, f"expected at most {MOST_INPUTS} inputs, but got {count(given)}")


def _wrong(place: str, why: str) -> BadRequest:
    return BadRequest(f"Invalid value for '{place}': {why}.", param=place, code="invalid_value")


def _clash(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=param, code="invalid_parameter_combination")
