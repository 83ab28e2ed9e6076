"""Formats that no row describes, derived from the turns that a chat template writes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from adapter.generation.probe_turns import ANSWER, IDS, LEVELS, NAME, REASONING, SIMPLEST, ProbeTurns, schema
from adapter.generation.read_back import Turn
from adapter.grammar.accepts import accepts
from adapter.tools import ModelFormat, Tags, ToolFormat, UnsupportedSchema
from adapter.tools.derive import ReasoningSample, Sample, Samples, derive_calls, derive_tags
from adapter.tools.derive.sample import ID, json_objects
from adapter.tools.formats.json_calls import JsonCalls
from adapter.tools.formats.pythonic import Pythonic

_ONE: Mapping[str, Any] = LEVELS[1]
_MAX_LENGTH = 20_000
"""Maximum length of the calls that a format is derived from, in characters: finding objects takes quadratic time."""

_OTHER: Mapping[str, Any] = {"city": "Bergen", "days": 7}


def derived_formats(turns: ProbeTurns, tags: Tags | None, control: Collection[str]) -> Iterator[ToolFormat]:
    """Yield the formats that describe how the template writes calls: those that also leave text before a call and
    answers without calls as they are, and whose grammars of calls allow what the template writes.
    """
    one, two = turns.calls(_ONE), turns.calls(_OTHER, _ONE)
    if one is None or not turns.writes_calls(_ONE):
        return
    several = two if turns.writes_calls(_OTHER, _ONE) else None
    texts = one.text if several is None else one.text + several.text
    if len(texts) > _MAX_LENGTH:
        return
    present = frozenset(token for token in control if token and token in texts)
    two_calls = None if several is None else _sample(several, tags, _OTHER, _ONE)
    whole = Samples(_sample(one, tags, _ONE), two_calls, present)
    # A control token at the end may be a mark of calls, or what ends an answer with calls.
    for samples in (whole, _stripped(whole)):
        for calls in derive_calls(samples):
            if not turns.expired and _holds(calls, tags, turns) and _writes(calls, samples):
                yield calls


def derived_tags(turns: ProbeTurns, control: Collection[str]) -> Tags | None:
    """Return the tags of reasoning that the template writes, if they are clear."""
    answer, call = turns.answer(), turns.calls(SIMPLEST)
    for turn in turns.reasoned():
        answers = ANSWER in turn.text
        if (plain := answer if answers else call) is None or REASONING not in turn.text:
            continue
        present = [token for token in control if token and (token in turn.text or token in turn.prompt)]
        texts = (turn.start + turn.text, plain.start + plain.text, turn.prompt, REASONING)
        if tags := derive_tags(ReasoningSample(*texts, ANSWER if answers else "", present)):
            return tags
    return None


def _sample(turn: Turn, tags: Tags | None, *arguments: Mapping[str, Any]) -> Sample:
    text = turn.answer
    if tags is not None:
        # Without reasoning, many templates write an empty pair of tags, or the end of it.
        text = re.sub(rf"\A\s*({re.escape(tags.opening)})?\s*{re.escape(tags.closing)}\s*", "", text, count=1)
    return Sample(re.sub(IDS, ID, text), NAME, arguments)


def _stripped(samples: Samples) -> Samples:
    """Return the samples without the control token at their ends."""
    ending = re.compile(rf"\s*({'|'.join(map(re.escape, samples.control)) or '(?!)'})\s*\Z")

    def strip(sample: Sample) -> Sample:
        return msgspec.structs.replace(sample, text=ending.sub("", sample.text))

    return Samples(strip(samples.one), samples.two and strip(samples.two), samples.control)


def _holds(calls: ToolFormat, tags: Tags | None, turns: ProbeTurns) -> bool:
    """Return True if text before a call, unless the template drops it, and an answer without calls are content, and a
    call without arguments is one.
    """
    model_format = ModelFormat(calls, tags)
    empty = turns.calls({})
    if empty is not None and NAME in empty.answer and empty.read(model_format, {NAME: None}).calls != ((NAME, {}),):
        return False
    schemas = {NAME: schema(_ONE)}
    both, answer = turns.calls(_ONE, content=ANSWER), turns.answer()
    if both is not None and all(text in both.answer for text in (ANSWER, NAME)):
        read = both.read(model_format, schemas)
        # Some templates write text before a call as reasoning.
        if read.calls != ((NAME, _ONE),) or sorted((read.content, read.reasoning)) != ["", ANSWER]:
            return False
    return answer is None or answer.read(model_format, schemas) == answer.read(ModelFormat(None, tags), {})


def _writes(calls: ToolFormat, samples: Samples) -> bool:
    """Return True if the grammar of forced calls allows what the template writes, up to spaces in JSON."""
    return _allows(calls, samples.one, several=False) and (
        samples.two is None or _allows(calls, samples.two, several=True)
    )


def _allows(calls: ToolFormat, sample: Sample, several: bool) -> bool:
    try:
        grammar = ModelFormat(calls, None).call_grammar({NAME: schema(*sample.arguments)}, several, {})
    except UnsupportedSchema:  # the marks are in the names of arguments
        return False
    text = _canonical(sample, calls)
    return any(accepts(grammar, each) for each in (text, text.rstrip(), text.lstrip(), text.strip()))


def _canonical(sample: Sample, calls: ToolFormat) -> str:
    """Return the text of a sample as grammars write it: objects in one line, and only with the members of a call,
    texts in double quotes, and no ids after names.
    """
    text, done, end = sample.text, "", 0
    if isinstance(calls, Pythonic):
        return text.replace("'", '"')
    if isinstance(calls, JsonCalls):
        text = text.replace(f"{calls.style.id_mark}{ID}", "" if calls.style.id_mark else "a")
    keys = (calls.style.name_key, calls.style.arguments_key) if isinstance(calls, JsonCalls) else ()
    for start, stop, value in json_objects(text):
        is_call = all(key in value for key in keys) if _is_object(calls) else value in sample.arguments
        if start >= end and is_call:
            wanted = {key: value[key] for key in keys} if _is_object(calls) else value
            done += text[end:start] + json.dumps(wanted, ensure_ascii=False)
            end = stop
    return done + text[end:]


def _is_object(calls: ToolFormat) -> bool:
    return isinstance(calls, JsonCalls) and calls.style.shape == "object"
