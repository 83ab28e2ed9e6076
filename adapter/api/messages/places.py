"""Places of a translated request, by those that the client knows."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import NamedTuple

_MESSAGE = re.compile(r"messages\[(\d+)\](?:(\.content)(?:\[(\d+)\](.*))?)?")
_TOOL = re.compile(r"tools\[(\d+)\](?:\.function)?(.*)")
_INDEX = re.compile(r"\[(\d+)\]")

# What other parameters, or the beginnings of their places, are called by the client.
_NAMES = {
    "max_completion_tokens": "max_tokens",
    "response_format.json_schema.schema": "output_config.format.schema",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning_effort": "output_config.effort",
}


class Origin(NamedTuple):
    """Where a part of a translated message comes from: the block of a message, and the block inside its content.

    -1: the system prompt instead of a message; no blocks, as the content is text; no block inside.
    """

    message: int
    block: int = -1
    inner: int = -1

    def __str__(self) -> str:
        place = "system" if self.message < 0 else f"messages.{self.message}.content"
        if self.block >= 0:
            place += f".{self.block}"
        return f"{place}.content.{self.inner}" if self.inner >= 0 else place


class Places:
    """Map from the places of a translated request to those of the client's, kept small: it lives as long as an answer.

    `origins` are those of the parts of each message, at least one, and `tools` the client's indexes of the tools.
    """

    def __init__(self, origins: Sequence[Sequence[Origin]] = (), tools: Sequence[int] = ()) -> None:
        self._starts, self._parts = array("i"), array("i")
        for parts in origins:
            self._starts.append(len(self._parts))
            for part in parts:
                self._parts.extend(part)
        self._tools = array("i", tools)

    def find(self, place: str) -> str:
        """Return the client's name of a place, in Anthropic's notation, also of one that was not translated."""
        if (found := _MESSAGE.match(place)) and int(found[1]) < len(self._starts):
            _, content, part, rest = found.groups()
            if part is None:
                return self._message(int(found[1])) + (content or "")
            return f"{self._part(int(found[1]), int(part))}{dotted(rest)}"
        if (found := _TOOL.fullmatch(place)) and int(found[1]) < len(self._tools):
            return f"tools.{self._tools[int(found[1])]}{dotted(found[2].replace('.parameters', '.input_schema', 1))}"
        if place == "continue_final_message" and self._starts:
            return self._message(len(self._starts) - 1)
        known = next((name for name in _NAMES if place == name or place.startswith((f"{name}.", f"{name}["))), None)
        return dotted(place if known is None else _NAMES[known] + place[len(known) :])

    def _message(self, message: int) -> str:
        origin = self._part(message, 0)
        return "system" if origin.message < 0 else f"messages.{origin.message}"

    def _part(self, message: int, part: int) -> Origin:
        start = min(self._starts[message] + 3 * part, len(self._parts) - 3)
        return Origin(*self._parts[start : start + 3])


def dotted(place: str) -> str:
    """Return a place in Anthropic's notation, which has no brackets."""
    return _INDEX.sub(r".\1", place)
