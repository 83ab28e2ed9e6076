"""What a chat template writes for an assistant's message, and what a format of calls and reasoning reads in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from adapter.prompt import QUESTION, ChatTemplate, TemplateTooSlow
from adapter.tools import ModelFormat
from adapter.tools.reading.parts import Content, Reasoning, ToolArguments, ToolCallBegin
from subnet.errors import InvalidRequest

_ANSWER = "\ufdd0"
# Where a part of a prompt ends at the latest: behind a mark or a line.
_BOUNDARY = re.compile(r".*[>\]\n]", re.DOTALL)
_OPENED = re.compile(r"[<\[][^<>\[\]\s]+[>\]]\s*\Z")


class Message(msgspec.Struct, frozen=True):
    """Assistant's message as it is read: all texts without white space around them."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Any], ...] = ()


class Turn(msgspec.Struct, frozen=True):
    """Text that a template writes for an assistant's message. `start` precedes it, and `end` follows any message.
    `prompt` is the prompt for an answer in its place, which may end otherwise than `start`. `control` are the texts of
    control tokens in it: answers do not have them, unless they are marks of the format.
    """

    start: str
    text: str
    end: str
    prompt: str
    control: frozenset[str] = frozenset()

    def read(self, model_format: ModelFormat, tools: Mapping[str, Any], cut: bool = False) -> Message:
        """Return the message that a model's answer of this text would become, with `cut` if it was cut off there."""
        tags = model_format.tags
        opened = tags is not None and self.start.rstrip().endswith(tags.opening)
        parser = model_format.parser(tools, opened)
        hidden = self.control.difference(model_format.visible_marks)
        text = _without(self._until_end(hidden), hidden)
        if tags is not None and not opened:
            # Where a model does not reason, its prompt has the end of reasoning.
            text = text.removeprefix(tags.closing)
        if parser is None:
            return Message(text.strip())
        return _message([*parser.decode(text), *parser.flush(cut)])

    @property
    def answer(self) -> str:
        """The text with all control tokens, up to where an answer stops."""
        return self._until_end(self.control)

    def _until_end(self, control: Collection[str]) -> str:
        """Return the text before what ends a message, where an answer stops: the template may go on."""
        stops = [self.text.find(mark) for mark in control if mark in self.end and mark in self.text]
        return _without_end(self.text[: min(stops, default=None)], self.end)


def written_turn(
    template: ChatTemplate,
    message: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]],
    *,
    control: Collection[str] = (),
    variables: Mapping[str, Any] | None = None,
    deadline: float | None = None,
) -> Turn | None:
    """Return what `template` writes for an assistant's message after a question; None if it rejects the message.

    `control` are the texts of the model's control tokens, of which there may be thousands. Raises TemplateTooSlow.
    """

    def render(*messages: Mapping[str, Any], prompt: bool = False) -> str:
        return template.render(
            [QUESTION, *messages], tools=tools, add_generation_prompt=prompt, variables=variables, deadline=deadline
        )

    try:
        prompt, whole = render(prompt=True), render(message)
    except TemplateTooSlow:
        raise
    except InvalidRequest:
        return None
    try:
        plain, _, end = render({"role": "assistant", "content": _ANSWER}).rpartition(_ANSWER)
    except TemplateTooSlow:
        raise
    except InvalidRequest:
        plain, end = "", ""
    start = _common_start(whole, prompt, plain)
    text = whole[len(start) :]
    present = frozenset(mark for mark in control if mark and (mark in text or mark in end))
    return Turn(start, text, end, prompt, present)


def _common_start(whole: str, prompt: str, plain: str) -> str:
    """Return the part of `whole` that precedes the message. `prompt` precedes an answer, and `plain` a message of text.

    A generation prompt may have more than precedes the message, such as an opening mark of reasoning, whose first
    characters the message may share; or less, if templates write the last question in another way.
    """
    starts = [prompt, prompt.rstrip(), _OPENED.sub("", prompt), plain, plain.rstrip()]
    for start in sorted(starts, key=len, reverse=True):
        if start and whole.startswith(start):
            return start
    common = max((_common_prefix(whole, each) for each in (prompt, plain)), key=len)
    boundary = _BOUNDARY.match(common)
    return boundary.group() if boundary else ""


def _common_prefix(one: str, two: str) -> str:
    differing = (at for at, (this, that) in enumerate(zip(one, two, strict=False)) if this != that)
    return one[: next(differing, min(len(one), len(two)))]


def _without_end(text: str, end: str) -> str:
    for each in (end, end.strip()):
        if each and text.endswith(each):
            return text.removesuffix(each)
    return text


def _without(text: str, control: Collection[str]) -> str:
    longest_first = sorted(control, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), "", text) if control else text


def _message(parts: Sequence[object]) -> Message:
    content = "".join(part.text for part in parts if isinstance(part, Content))
    reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
    return Message(content.strip(), reasoning.strip(), tuple(_calls(parts)))


def _calls(parts: Sequence[object]) -> Iterator[tuple[str, Any]]:
    for begin in parts:
        if isinstance(begin, ToolCallBegin):
            pieces = (part for part in parts if isinstance(part, ToolArguments) and part.index == begin.index)
            yield begin.name, _decoded("".join(part.text for part in pieces))


def _decoded(arguments: str) -> object:
    try:
        return msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return arguments
