"""Types of chat messages and their parts, as a tagged union by `role`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

# Far more than conversations need; they limit what a request costs.
MAX_MESSAGES, MAX_PARTS, MAX_TOOL_CALLS, MAX_ARGUMENTS_LENGTH = 4096, 1024, 1024, 2**20

_Arguments = Annotated[str, Meta(max_length=MAX_ARGUMENTS_LENGTH)]


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class ImageUrl(Struct, frozen=True, omit_defaults=True):
    """An image. `url` may be a `data:` URL that contains it."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class InputAudio(Struct, frozen=True):
    """Audio input. `data` is base64."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(Struct, frozen=True, tag_field="type", tag="input_audio"):
    input_audio: InputAudio


class File(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file, by its id or with its content. `file_data` is base64, or a `data:` URL."""

    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class FilePart(Struct, frozen=True, tag_field="type", tag="file"):
    file: File


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart

_PARTS_LENGTH = Meta(min_length=1, max_length=MAX_PARTS)
TextParts = Annotated[list[TextPart], _PARTS_LENGTH]
UserParts = Annotated[list[TextPart | ImagePart | AudioPart | FilePart], _PARTS_LENGTH]
# Some clients write an empty list beside tool calls.
AssistantParts = Annotated[list[TextPart | RefusalPart], Meta(max_length=MAX_PARTS)]


class CalledFunction(Struct, frozen=True):
    """A called function. `arguments` is JSON text as the model wrote it; it may be invalid."""

    name: str
    arguments: _Arguments


class ToolCall(Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class EarlierFunction(Struct, frozen=True):
    """Function of a call in the history. `arguments` is JSON text as the model wrote it; it may be invalid. Some
    clients send the decoded object, or null instead of no arguments.
    """

    name: str
    arguments: _Arguments | dict[str, Any] | None = None


class EarlierCall(Struct, frozen=True, kw_only=True):
    """Call in the history. Some clients leave out its id."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: EarlierFunction


class SystemMessage(Struct, frozen=True, tag_field="role", tag="system"):
    content: str | TextParts
    name: str | None = None


class DeveloperMessage(Struct, frozen=True, tag_field="role", tag="developer"):
    content: str | TextParts
    name: str | None = None


class UserMessage(Struct, frozen=True, tag_field="role", tag="user"):
    content: str | UserParts
    name: str | None = None


class AssistantMessage(Struct, frozen=True, tag_field="role", tag="assistant"):
    """A message of the model.

    `reasoning_content`, or `reasoning` as some servers name it, is the model's reasoning before the answer; most chat
    templates omit it. `audio` and `function_call` must be null. If the message is the last one, `prefix` (DeepSeek,
    Mistral) and `partial` (Qwen, Kimi) mean that the answer continues it.
    """

    content: str | AssistantParts | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[EarlierCall], Meta(max_length=MAX_TOOL_CALLS)] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    audio: None = None
    function_call: None = None
    prefix: bool | None = None
    partial: bool | None = None


class ToolMessage(Struct, frozen=True, tag_field="role", tag="tool"):
    """Result of a tool call. `name`, that of the function, is for templates that show it. Without content, the result
    is empty. Without `tool_call_id`, it is that of the first call without one.
    """

    tool_call_id: str | None = None
    content: str | Annotated[list[TextPart], Meta(max_length=MAX_PARTS)] | None = None
    name: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage
