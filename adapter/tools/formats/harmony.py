"""Format of gpt-oss: messages `<|channel|>name<|message|>text<|end|>`, each further one after `<|start|>assistant`. The
channel `analysis` is reasoning, a message `to=functions.name` is a call, and the rest is content.

Headers are parsed by the package openai-harmony (see harmony_header.py). The text after a header is parsed here: the
package needs tokens, but stop strings are found in text. The result is the same, as text extends to the next mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from adapter.tools.formats.base import ToolFormat
from adapter.tools.formats.harmony_header import (
    CHANNEL,
    CONSTRAIN,
    FUNCTIONS,
    MESSAGE,
    START,
    Header,
    ReadHeader,
    read_as_text,
)
from adapter.tools.grammar.free_text import text_without
from adapter.tools.grammar.lark import Lark, quoted
from adapter.tools.grammar.reasoning import Tags
from adapter.tools.reading.parts import Content, Reasoning
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading

_MARK, _END = "<|", "<|end|>"
_ENDS = (_END, "<|call|>", "<|return|>")
_TO = re.compile(r"[^\s<]*\s*[^\s<]*")
"""Recipient, and the type of text that it gets."""


class Harmony(ToolFormat):
    """Format of gpt-oss. An incomplete header at the end of the text is skipped. A header without a message is content,
    and so is text outside of messages. `<|start|>` ends a message without an end mark. Arguments are passed on as the
    model wrote them, even if they are not valid JSON.
    """

    name = "harmony"
    visible_marks = (START, CHANNEL, CONSTRAIN, MESSAGE, *_ENDS)
    marks_reasoning = marks_text = True

    def __init__(self, read_header: ReadHeader = read_as_text) -> None:
        self._read_header = read_header

    @classmethod
    def for_vocabulary(cls, pieces: Sequence[bytes]) -> Harmony:
        """Return the format for a model whose token i has the bytes `pieces[i]`. Takes about a second."""
        from adapter.tools.formats.harmony_header import load  # slow, and only these models need it

        return cls(load(pieces))

    def parse(self, source: Source) -> Reading[None]:
        yield from self._first_message(source)
        while (yield from source.emit_until(START, CHANNEL, make=Content)):
            mark = yield from source.literal(START, CHANNEL)
            yield from self._header_and_message(source, mark)

    def _first_message(self, source: Source) -> Reading[None]:
        """Parse the first message, whose header may have started in the prompt (`<|start|>assistant`)."""
        yield from source.space()
        if (yield from source.literal("to=")):
            yield from source.match(_TO)
            if not (yield from source.peek()):
                source.skip()
        within = yield from source.literal(CHANNEL, CONSTRAIN, MESSAGE)
        source.at = 0
        if within:
            yield from self._header_and_message(source, "")

    def _header_and_message(self, source: Source, mark: str) -> Reading[None]:
        rest = yield from source.read_until(MESSAGE, START, *_ENDS)
        if rest is None:
            source.skip()
        elif (yield from source.literal(MESSAGE)):
            yield from self._message(source, self._read_header(mark + rest))
        else:
            source.reject(len(mark))

    def _message(self, source: Source, header: Header) -> Reading[None]:
        if header.function is not None:
            yield from self._call(source, header.function)
        else:
            source.skip()
            yield from source.emit_until(START, *_ENDS, make=Reasoning if header.is_reasoning else Content)
        yield from source.literal(*_ENDS)
        source.skip()

    def _call(self, source: Source, name: str) -> Reading[None]:
        source.begin_call(name)
        yield from source.space()
        source.skip()
        if (yield from source.literal(*_ENDS)):
            source.write_arguments("{}")
            return
        if (yield from source.peek()) == "{":
            yield from source.emit_object()
        yield from source.emit_until(START, *_ENDS, make=source.arguments_part, trim=True)

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        """Return an expression for one call, which ends the model's turn."""
        return f"{self._reasoning(lark)}? {lark.mark(CHANNEL)} {self._call_of(lark, tools)}"

    def _call_of(self, lark: Lark, tools: Tools) -> str:
        return lark.one_of(
            f"{quoted(f'commentary to={FUNCTIONS}{name} ')} {lark.mark(CONSTRAIN)} {quoted('json')}"
            f" {lark.mark(MESSAGE)} {lark.arguments(schema)}"
            for name, schema in tools.items()
        )

    def free_grammar(self, lark: Lark, tools: Tools, several: bool, tags: Tags | None, in_reasoning: bool) -> str:
        """Return an expression for a message with text, or a call, optionally after a message that introduces it."""
        text = text_without(lark, _MARK)
        final = f'"final" {lark.mark(MESSAGE)} {text}'
        introduced = f'"commentary" {lark.mark(MESSAGE)} {text} {self._next(lark)}'
        call = f"({introduced} {lark.mark(CHANNEL)})? {self._call_of(lark, tools)}"
        return f"{self._reasoning(lark)}? {lark.mark(CHANNEL)} ({final} | {call})"

    def content_grammar(self, lark: Lark, body: str) -> str:
        return f'{self._reasoning(lark)}? {lark.mark(CHANNEL)} "final" {lark.mark(MESSAGE)} {body}'

    def _reasoning(self, lark: Lark) -> str:
        message = f'{lark.mark(CHANNEL)} "analysis" {lark.mark(MESSAGE)} {text_without(lark, _MARK)}'
        return lark.rule(f"{message} {self._next(lark)}")

    def _next(self, lark: Lark) -> str:
        """Return an expression for the end of a message and the start of the next one."""
        return f'{lark.mark(_END)} {lark.mark(START)} "assistant"'
