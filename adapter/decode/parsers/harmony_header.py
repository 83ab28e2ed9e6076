"""What comes before the text of a harmony message: who writes, in which channel, to whom, and of which type."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from adapter.decode.parsers.json_call import is_name

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
FUNCTIONS = "functions."

_CHANNEL = re.compile(r"<\|channel\|>\s*([^\s<]+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")


class Header(NamedTuple):
    channel: str | None
    recipient: str | None

    @property
    def function(self) -> str | None:
        """The client's function that is called, if one is."""
        name = (self.recipient or "").removeprefix(FUNCTIONS)
        return name if name != self.recipient and is_name(name) else None

    @property
    def reasons(self) -> bool:
        """Calls to tools that are none of the client's (browser, python) are reasoning, too."""
        return self.channel == "analysis" or (bool(self.recipient) and self.channel != "final")


ReadHeader: TypeAlias = Callable[[str], Header]
"""Of a header up to its `<|message|>`. One that does not begin with `<|start|>` is the assistant's. Never raises."""


def read_as_text(header: str) -> Header:
    """Takes what it finds, wherever that stands."""
    channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
    return Header(channel and channel[1], recipient and recipient[1])
