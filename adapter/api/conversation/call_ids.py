"""Ids of tool calls that the history lacks, as clients of Ollama and Gemini leave them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice, takewhile
from typing import Any

Plain = dict[str, Any]


def complete_ids(messages: list[Plain]) -> list[Plain]:
    """Return `messages` with an id for each call, and for each result that of its call.

    A result without an id belongs to the first call of the message before it that has no result and has the result's
    `name`, or else to the first without one. So does one with the id of no call, if the call had no id: some clients
    make one up, or use the name. Ids depend on nothing but earlier messages, so that the prompts of a conversation
    begin alike.
    """
    return list(_completed(messages)) if any(_lacks_id(message) for message in messages) else messages


def _lacks_id(message: Plain) -> bool:
    is_result = message["role"] == "tool" and not message.get("tool_call_id")
    return is_result or any(not call["id"] for call in message.get("tool_calls", ()))


def _completed(messages: Sequence[Plain]) -> Iterator[Plain]:
    given = {call["id"] for message in messages for call in message.get("tool_calls", ())}
    unused = (name for number in count() if (name := f"call_{number}") not in given)
    turn = _Turn([], ())
    for index, message in enumerate(messages):
        if calls := message.get("tool_calls"):
            results = list(takewhile(lambda other: other["role"] == "tool", islice(messages, index + 1, None)))
            ids = [call["id"] or next(unused) for call in calls]
            turn = _Turn(list(zip(ids, calls, strict=True)), results)
            yield {**message, "tool_calls": [{**call, "id": id_} for id_, call in zip(ids, calls, strict=True)]}
        elif message["role"] == "tool":
            yield turn.with_id(message)
        else:
            turn = _Turn([], ())
            yield message


class _Turn:
    """Calls of one message, with their ids, and the results after it."""

    def __init__(self, calls: Sequence[tuple[str, Plain]], results: Sequence[Plain]) -> None:
        answered = {result.get("tool_call_id") for result in results}
        self._ids = {call["id"] for _, call in calls}
        self._unanswered = [(id_, call) for id_, call in calls if not call["id"] or call["id"] not in answered]

    def with_id(self, result: Plain) -> Plain:
        """Return `result` with the id of its call, which counts as answered then."""
        own = result.get("tool_call_id")
        if own and own in self._ids:
            return result
        names = (result.get("name"), own)
        possible = [found for found in self._unanswered if not own or not found[1]["id"]]
        if not possible:
            return result
        found = next((found for found in possible if found[1]["function"]["name"] in names), possible[0])
        self._unanswered.remove(found)
        return {**result, "tool_call_id": found[0]}
