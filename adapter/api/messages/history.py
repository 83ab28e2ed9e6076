"""Translates the messages of a conversation.

A message of Anthropic's may have results of tools, texts and images in one. They become messages of their own: first
the results, then the rest as a message of the user. Images in a result become parts of that, as results are text.
Messages of the user that follow each other are one turn at Anthropic, and become one message, as many chat templates
allow no more. So do instructions in the middle of the conversation, which few templates allow there: marked as Claude
Code marked them before it had a role for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from adapter.api.conversation import message_types as chat
from adapter.api.messages.content_types import (
    AnyServerBlock,
    Base64Source,
    Block,
    ContentSource,
    DocumentBlock,
    FileSource,
    ImageBlock,
    PlainTextSource,
    SearchResultBlock,
    ShownBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from adapter.api.messages.places import Origin
from adapter.api.messages.types import AssistantTurn, SystemTurn, Turn, UserTurn
from adapter.errors import invalid

# A line that Claude Code puts before its system prompt, with a number that differs in each request, so that no part of
# a prompt would be found in a cache. It says nothing to a model (vllm-project/vllm pull request 36829).
_BILLING = "x-anthropic-billing-header:"

_UserPart = chat.TextPart | chat.ImagePart | chat.AudioPart | chat.FilePart
Origins = list[list[Origin]]


class _Placed(NamedTuple):
    part: _UserPart
    origin: Origin


def translate_history(
    system: str | Sequence[TextBlock] | None, messages: Sequence[Turn]
) -> tuple[list[chat.Message], Origins]:
    """Return the messages, and where each part of them comes from. Raises BadRequest for a document that only Anthropic
    could fetch.
    """
    history = _History()
    history.add_instructions(-1, system or "")
    for index, message in enumerate(messages):
        match message:
            case SystemTurn():
                history.add_instructions(index, message.content)
            case UserTurn():
                history.add_user(index, message.content)
            case AssistantTurn():
                history.add_assistant(index, message)
    return history.finish()


class _History:
    def __init__(self) -> None:
        self._messages: list[chat.Message] = []
        self._origins: Origins = []
        self._instructions: list[tuple[str, Origin]] = []
        self._turn: list[_Placed] = []
        self._turn_begin: Origin | None = None
        self._has_begun = False

    def add_instructions(self, index: int, content: str | Sequence[TextBlock]) -> None:
        texts = [(text, origin) for text, origin in _texts(index, content) if not text.startswith(_BILLING)]
        if not self._has_begun:
            self._instructions += texts
            return
        for text, origin in texts:
            self._turn_begin = self._turn_begin or Origin(index)
            marked = f"<system-reminder>\n{text}\n</system-reminder>"
            self._turn.append(_Placed(chat.TextPart(marked), origin))

    def add_user(self, index: int, content: str | Sequence[Block]) -> None:
        self._begin()
        self._turn_begin = self._turn_begin or Origin(index)
        if isinstance(content, str):
            self._turn.append(_Placed(chat.TextPart(content), Origin(index)))
            return
        for number, block in enumerate(content):
            if isinstance(block, ToolResultBlock):
                self._add_result(block, Origin(index, number))
        for number, block in enumerate(content):
            if isinstance(block, ShownBlock):
                self._turn += [_Placed(part, Origin(index, number)) for part in _parts(block, Origin(index, number))]

    def add_assistant(self, index: int, message: AssistantTurn) -> None:
        self._begin()
        self._end_turn()
        content = message.content
        if isinstance(content, str):
            self._append(chat.AssistantMessage(content=content), [Origin(index)])
            return
        texts = [
            (block.text, Origin(index, number)) for number, block in enumerate(content) if isinstance(block, TextBlock)
        ]
        calls = [_call(block) for block in content if isinstance(block, ToolUseBlock)]
        thinking = "\n".join(block.thinking for block in content if isinstance(block, ThinkingBlock))
        self._append(
            chat.AssistantMessage(
                content=_assistant_content(texts) if texts or not calls else None,
                tool_calls=calls or None,
                reasoning_content=thinking or None,
            ),
            [origin for _, origin in texts] or [Origin(index)],
        )

    def finish(self) -> tuple[list[chat.Message], Origins]:
        self._begin()
        self._end_turn()
        if not self._messages:
            # Nothing but empty instructions.
            self._append(chat.UserMessage(content=""), [Origin(0)])
        return self._messages, self._origins

    def _begin(self) -> None:
        """Add the instructions before the conversation, if this is its beginning."""
        if not self._has_begun and self._instructions:
            content = _text_content(self._instructions)
            self._append(chat.SystemMessage(content=content), [origin for _, origin in self._instructions])
        self._has_begun = True

    def _end_turn(self) -> None:
        """Add what the user has said since the last message of the model."""
        parts, self._turn = self._turn, []
        if parts:
            self._append(chat.UserMessage(content=_user_content(parts)), [placed.origin for placed in parts])
        elif self._turn_begin is not None and not (self._messages and isinstance(self._messages[-1], chat.ToolMessage)):
            self._append(chat.UserMessage(content=""), [self._turn_begin])
        self._turn_begin = None

    def _add_result(self, block: ToolResultBlock, origin: Origin) -> None:
        """Add the result of a call, which must follow the call, before anything else that the user has said."""
        content = block.content
        if content is None or isinstance(content, str):
            texts = [(content or "", origin)]
        else:
            texts = []
            for number, inner in enumerate(content):
                if isinstance(inner, AnyServerBlock):
                    continue
                place = origin._replace(inner=number)
                for part in _parts(inner, place):
                    if isinstance(part, chat.TextPart):
                        texts.append((part.text, place))
                    else:
                        self._turn.append(_Placed(part, place))
            texts = texts or [("", origin)]
        if block.is_error:
            texts[0] = (_as_error(texts[0][0]), texts[0][1])
        self._append(
            chat.ToolMessage(tool_call_id=block.tool_use_id, content=_text_content(texts)),
            [each for _, each in texts],
        )

    def _append(self, message: chat.Message, origins: list[Origin]) -> None:
        self._messages.append(message)
        self._origins.append(origins)


def _texts(index: int, content: str | Sequence[TextBlock]) -> list[tuple[str, Origin]]:
    if isinstance(content, str):
        return [(content, Origin(index))] if content else []
    return [(block.text, Origin(index, number)) for number, block in enumerate(content)]


def _text_content(texts: Sequence[tuple[str, Origin]]) -> str | list[chat.TextPart]:
    """Return texts as content; one of them as a string, as not every server accepts parts."""
    return texts[0][0] if len(texts) == 1 else [chat.TextPart(text) for text, _ in texts] or ""


def _assistant_content(texts: Sequence[tuple[str, Origin]]) -> str | list[chat.TextPart | chat.RefusalPart]:
    content = _text_content(texts)
    return content if isinstance(content, str) else [*content]


def _user_content(placed: Sequence[_Placed]) -> str | list[_UserPart]:
    if len(placed) == 1 and isinstance(placed[0].part, chat.TextPart):
        return placed[0].part.text
    return [part for part, _ in placed]


def _as_error(text: str) -> str:
    """Return the text of a failed call so that the model sees that it failed."""
    if text.lstrip().lower().startswith(("error", "<tool_use_error>")):
        return text
    return f"Error: {text}" if text else "Error"


def _call(block: ToolUseBlock) -> chat.EarlierCall:
    arguments = msgspec.json.encode(block.input).decode()
    return chat.EarlierCall(id=block.id, function=chat.EarlierFunction(block.name, arguments))


def _parts(block: ShownBlock, origin: Origin) -> Iterator[_UserPart]:
    match block:
        case TextBlock():
            yield chat.TextPart(block.text)
        case ImageBlock():
            yield _image(block, origin)
        case DocumentBlock():
            yield _document(block, origin)
        case SearchResultBlock():
            yield chat.TextPart("\n".join((block.title, block.source, *(inner.text for inner in block.content))))


def _image(block: ImageBlock, origin: Origin) -> chat.ImagePart:
    match block.source:
        case Base64Source(media_type=media_type, data=data):
            return chat.ImagePart(chat.ImageUrl(f"data:{media_type};base64,{data}"))
        case UrlSource(url=url):
            return chat.ImagePart(chat.ImageUrl(url))
        case FileSource():
            raise invalid(
                f"{origin}.source.type", "files are not stored here. Supported values are: 'base64' and 'url'"
            )


def _document(block: DocumentBlock, origin: Origin) -> _UserPart:
    match block.source:
        case Base64Source(media_type=media_type, data=data):
            file = chat.File(filename=block.title or "document", file_data=f"data:{media_type};base64,{data}")
            return chat.FilePart(file)
        case PlainTextSource(data=text):
            return _document_text(block, text)
        case ContentSource(content=content):
            text = content if isinstance(content, str) else "\n".join(inner.text for inner in content)
            return _document_text(block, text)
        case UrlSource() | FileSource():
            supported = "Supported values are: 'base64', 'text' and 'content'"
            raise invalid(f"{origin}.source.type", f"documents are not fetched. {supported}")


def _document_text(block: DocumentBlock, text: str) -> chat.TextPart:
    return chat.TextPart("\n".join(part for part in (block.title, block.context, text) if part))
