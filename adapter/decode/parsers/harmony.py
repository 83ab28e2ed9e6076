"""gpt-oss: messages `<|channel|>name<|message|>text<|end|>`, with more of them after `<|start|>assistant`. Channel
`analysis` is reasoning, a message `to=functions.name` is a call, the rest is content.

Read as text, not with the package openai-harmony: that takes token ids, while stop strings end an answer in its text;
and it needs a vocabulary file that it downloads (or finds where TIKTOKEN_ENCODINGS_BASE says), though the text is here.
"""

from __future__ import annotations

import re

from adapter.decode.parsers.format import ToolFormat
from adapter.decode.parsers.free import without
from adapter.decode.parsers.json_call import is_name
from adapter.decode.parsers.lark import Lark, quoted
from adapter.decode.parsers.reasoning import Tags
from adapter.decode.parsers.source import Source, Tools
from adapter.decode.parsers.text import Reading
from adapter.decode.parts import Content, Reasoning

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_MARK, _END = "<|", "<|end|>"
_ENDS = (_END, "<|call|>", "<|return|>")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_ANALYSIS = re.compile(r"<\|channel\|>\s*analysis\b")
_FUNCTIONS = "functions."


class Harmony(ToolFormat):
    """Calls to tools that are none of the client's (browser, python) are reasoning. A header that the end of the text
    cuts off is skipped; one that goes wrong is content. Arguments are what the model wrote, whatever that is."""

    name = "harmony"
    visible = (_START, _CHANNEL, _CONSTRAIN, _MESSAGE, *_ENDS)
    reasons = True

    def read(self, source: Source) -> Reading[None]:
        while (yield from source.pass_until(_START, _CHANNEL, give=Content)):
            mark = yield from source.literal(_START, _CHANNEL)
            rest = yield from source.before(_MESSAGE, _START, *_ENDS)
            if rest is None:
                source.skip()
            elif (yield from source.literal(_MESSAGE)):
                yield from self._message(source, mark + rest)
            else:
                source.refuse(len(mark))

    def _message(self, source: Source, header: str) -> Reading[None]:
        found = _RECIPIENT.search(header)
        recipient = found[1] if found else ""
        name = recipient.removeprefix(_FUNCTIONS)
        if name != recipient and is_name(name):
            yield from self._call(source, name)
        else:
            source.skip()
            give = Reasoning if recipient or _ANALYSIS.search(header) else Content
            yield from source.pass_until(_START, *_ENDS, give=give)
        yield from source.literal(*_ENDS)
        source.skip()

    def _call(self, source: Source, name: str) -> Reading[None]:
        source.begin(name)
        yield from source.space()
        source.skip()
        if (yield from source.literal(*_ENDS)):
            source.write("{}")
            return
        if (yield from source.peek()) == "{":
            yield from source.pass_object()
        yield from source.pass_until(_START, *_ENDS, give=source.argument, trim=True)

    def calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        """One call: the model ends its turn with it."""
        return f"{self._reasoning(lark)}? {lark.mark(_CHANNEL)} {self._call_of(lark, tools)}"

    def _call_of(self, lark: Lark, tools: Tools) -> str:
        return lark.either(
            f"{quoted(f'commentary to={_FUNCTIONS}{name} ')} {lark.mark(_CONSTRAIN)} {quoted('json')}"
            f" {lark.mark(_MESSAGE)} {lark.arguments(schema)}"
            for name, schema in tools.items()
        )

    def free(self, lark: Lark, tools: Tools, several: bool, tags: Tags | None, opened: bool) -> str:
        """Text is a message of its own, and so is what introduces a call."""
        text = without(lark, _MARK)
        final = f'"final" {lark.mark(_MESSAGE)} {text}'
        introduced = f'"commentary" {lark.mark(_MESSAGE)} {text} {self._next(lark)}'
        call = f"({introduced} {lark.mark(_CHANNEL)})? {self._call_of(lark, tools)}"
        return f"{self._reasoning(lark)}? {lark.mark(_CHANNEL)} ({final} | {call})"

    def answer(self, lark: Lark, body: str) -> str:
        return f'{self._reasoning(lark)}? {lark.mark(_CHANNEL)} "final" {lark.mark(_MESSAGE)} {body}'

    def _reasoning(self, lark: Lark) -> str:
        message = f'{lark.mark(_CHANNEL)} "analysis" {lark.mark(_MESSAGE)} {without(lark, _MARK)}'
        return lark.rule(f"{message} {self._next(lark)}")

    def _next(self, lark: Lark) -> str:
        """The end of a message, and the beginning of the next."""
        return f'{lark.mark(_END)} {lark.mark(_START)} "assistant"'
