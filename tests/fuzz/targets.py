"""Targets of fuzzing: each takes any bytes, and fails if a decoder breaks its promise for them.

A decoder may refuse bytes only with the errors that it documents, and its result must not depend on how the bytes are
split. The first byte of the input chooses how they are, where that matters.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from adapter.api.chat.validation import read_request
from adapter.api.completions.validation import read_completion
from adapter.errors import AdapterError, to_http_error
from adapter.generation.model_format import find_format
from adapter.prompt.chat_template import ChatTemplate
from adapter.tools import FORMATS, REASONING, ModelFormat, select_format
from adapter.tools.reading.parts import Content, Part, Reasoning, ToolArguments, ToolCallBegin
from subnet.chat import ChatDelta
from subnet.errors import SettingsError, SubnetError, WireError
from subnet.http.error_map import to_error
from subnet.http.event_reader import EventReader
from subnet.http.response_parser import InvalidResponseError, ResponseHead, ResponseParser
from subnet.http.sse import Event
from subnet.inflate import Inflater
from subnet.models.gguf import parse_header
from subnet.node_info import TokenizerArtefact
from subnet.protocols.openai.chat_response import ChatResponse
from subnet.protocols.openai.openai_choice import Choice
from subnet.wire import columns, frames
from subnet.wire.messages import Deltas, ScoreReply

T = TypeVar("T")

TOOLS = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "near": {"type": "array"}},
    },
    "get_time": None,
}
_MAX_TEMPLATE = 2000


def pieces(data: bytes) -> Iterator[bytes]:
    """Yield the bytes after the first one, in pieces of the size that it gives."""
    size = 1 + (data[0] if data else 0)
    for start in range(1, len(data), size):
        yield data[start : start + size]


def frame(data: bytes) -> None:
    """Frames of the subnet, and their columns."""
    try:
        message = frames.decode(data)
        if isinstance(message, Deltas):
            rows = list(columns.unpack(message))
            assert (len(message.calls), len(message.tokens)) == (4 * len(rows), 4 * sum(len(d.tokens) for _, d in rows))
            assert list(columns.unpack(columns.pack(rows))) == rows
        elif isinstance(message, ScoreReply):
            columns.unpack_logprobs(message.logprobs)
    except WireError:
        return
    assert frames.encode(frames.decode(frames.encode(message))) == frames.encode(message)


def artefact(data: bytes) -> None:
    """Tokenizer artefacts of nodes."""
    try:
        decoded = TokenizerArtefact.from_bytes(data)
    except WireError:
        return
    assert TokenizerArtefact.from_bytes(decoded.to_bytes()) == decoded


def request(data: bytes) -> None:
    """Bodies of chat and text completions: whatever is wrong is the client's error, with a status of 4xx."""
    for read in (read_request, read_completion):
        refusal: Exception | None = None
        try:
            read(data)
        except (AdapterError, SubnetError) as error:
            refusal = error
        assert refusal is None or 400 <= to_http_error(refusal).status < 500


class _Events:
    """Sink that records events."""

    def __init__(self) -> None:
        self.done = self.is_json = False
        self.found: list[Event] = []

    def data(self, data: bytes) -> None:
        self.event(Event(data.decode(errors="replace")))

    def event(self, event: Event) -> None:
        self.found.append(event)
        self.done = event.data == "[DONE]" and not event.comment


def _events(parts: Iterable[bytes]) -> list[Event] | None:
    sink = _Events()
    reader = EventReader("peer", sink, lambda value: None)
    try:
        for part in parts:
            reader.feed(part)
        reader.end()
    except WireError:
        return None
    return sink.found


def events(data: bytes) -> None:
    """Server-sent events: the same however they are split, except for what is after [DONE] or an error."""
    whole, split = _events([data[1:]] if data[1:] else []), _events(pieces(data))
    assert whole == split or whole is None or split is None


def chunks(data: bytes) -> None:
    """Chunks of upstream servers."""
    received: list[ChatDelta] = []

    class Clock:
        last_received = 0.0

    response = ChatResponse("peer", [Choice(0)], received.append, lambda body: to_error("peer", 200, body), Clock())
    reader = EventReader("peer", response, lambda value: None)
    try:
        for part in pieces(data):
            reader.feed(part)
        reader.end()
        response.finish()
    except SubnetError:
        return
    assert sum(delta.finish_reason is not None for delta in received) == 1


class _Body:
    def __init__(self) -> None:
        self.done = False
        self.data = b""

    def feed(self, data: bytes) -> None:
        assert data
        self.data += data

    def end(self) -> None: ...


def _response(parts: Iterable[bytes]) -> tuple[ResponseHead | None, bytes, bool] | None:
    body = _Body()
    parser = ResponseParser(lambda head: body)
    try:
        for part in parts:
            if parser.feed(part):
                break
        parser.feed_eof()
    except InvalidResponseError:
        return None
    return parser.head, body.data, parser.complete


def response(data: bytes) -> None:
    """HTTP responses: the same however they are split."""
    whole, split = _response([data[1:]] if data[1:] else []), _response(pieces(data))
    # What follows a complete response may be in the same read.
    assert whole == split or whole is None


def error(data: bytes) -> None:
    """Error bodies of servers: a message of one thousand characters at most, and a time to wait of a day."""
    found = to_error("peer", 100 + 2 * data[0] if data else 500, data[1:].decode(errors="replace"))
    assert len(found.message) < 1100
    assert 0 <= (found.retry_after or 0) <= 86_400


def inflate(data: bytes) -> None:
    """Compressed bodies: in parts of at most 64 KiB, and the same however they are split."""
    results = []
    for parts in ([data[1:]], pieces(data)):
        inflater, result = Inflater("gzip" if data[:1] < b"\x80" else "deflate"), b""
        try:
            for part in parts:
                for decoded in inflater.parts(part):
                    assert 0 < len(decoded) <= 64 << 10
                    result += decoded
                    if len(result) > 1 << 20:
                        return
        except zlib.error:
            result = b""
        results.append(result)
    assert results[0] == results[1] or not all(results)


def gguf(data: bytes) -> None:
    """Headers of GGUF files."""
    try:
        header = parse_header(data)
    except ValueError:
        return
    assert 0 < header.size <= len(data)


def template(data: bytes) -> None:
    """Chat templates of nodes: the search for their format finds one, or none, and raises SettingsError only."""
    try:
        source = data[:_MAX_TEMPLATE].decode()
        find_format(ChatTemplate(source), budget=0.2)
    except (UnicodeDecodeError, SettingsError):
        return


def parser(name: str, reasoning: str | None = None) -> Callable[[bytes], None]:
    """Return the target of the parser of a format of calls and one of reasoning: no text raises an error, the parts
    account for each character, and they are the same however the text is split.
    """
    found = select_format("", name, reasoning)

    def check(data: bytes) -> None:
        text = data[1:].decode(errors="replace")
        whole = _message(_parse(found, [text]), len(text))
        size = 1 + (data[0] if data else 0)
        split = [text[at : at + size] for at in range(0, len(text), size)]
        assert _message(_parse(found, split), len(text)) == whole

    return check


def _parse(found: ModelFormat, texts: Iterable[str]) -> list[Part]:
    made = found.parser(TOOLS)
    if made is None:
        return []
    return [part for text in texts for part in made.decode(text)] + made.flush()


def _message(parts: list[Part], length: int) -> list[tuple[str, str]]:
    """Return kinds and texts of the parts, with those of one kind joined. Fails if their sizes do not add up."""
    assert not parts or sum(part.size for part in parts) == length
    joined: list[tuple[str, str]] = []
    for part in parts:
        match part:
            case ToolCallBegin(index, name):
                kind, text = f"call {index}", f"{name}: "
            case ToolArguments(index, text):
                kind = f"call {index}"
            case Content(text) | Reasoning(text):
                kind = type(part).__name__
            case _:
                continue
        if joined and joined[-1][0] == kind:
            joined[-1] = kind, joined[-1][1] + text
        else:
            joined.append((kind, text))
    return joined


TARGETS: dict[str, Callable[[bytes], None]] = {
    **{target.__name__: target for target in (frame, artefact, request, events, chunks, response)},
    **{target.__name__: target for target in (error, inflate, gguf, template)},
    **{f"calls-{name}": parser(name) for name in FORMATS},
    **{f"reasoning-{name}": parser("hermes", name) for name in REASONING},
}
"""All targets by name."""
