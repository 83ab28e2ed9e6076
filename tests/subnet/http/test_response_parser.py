"""The parser of HTTP responses: bytes split anywhere, the cases of another parser, and hostile servers."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.http.content_coding import decoded
from subnet.http.response_parser import MAX_HEAD, InvalidResponseError, ResponseHead, ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

NAMES = st.from_regex(r"x-[a-z]{1,8}", fullmatch=True)
VALUES = st.from_regex(r"[!-~]{0,10}", fullmatch=True)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
INTERIM = st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"])


class Body:
    """Receiver that keeps a body."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.done = False
        self.data = b""
        self.ended = False
        self._limit = limit

    def feed(self, data: bytes) -> None:
        assert data
        if not self.done:
            self.data += data
            self.done = len(self.data) >= self._limit

    def end(self) -> None:
        self.ended = True


class Response:
    """A parsed response."""

    def __init__(self, *parts: bytes, eof: bool = False) -> None:
        self.heads: list[ResponseHead] = []
        self.body = Body()
        self.parser = ResponseParser(self._receive)
        for part in parts:
            self.parser.feed(part)
        self.is_whole = self.parser.feed_eof() if eof else self.parser.complete

    def _receive(self, head: ResponseHead) -> Body:
        self.heads.append(head)
        return self.body

    @property
    def facts(self) -> tuple[object, ...]:
        return self.heads, self.body.data, self.is_whole, self.parser.keep_alive


def encode(interim: bytes, fields: list[tuple[str, str]], body: list[bytes], framing: str) -> bytes:
    """Encode a response whose body is framed in one of three ways."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    if framing == "chunked":
        chunks = b"".join(b"%X;a=b\r\n%b\r\n" % (len(part), part) for part in body)
        return interim + OK + lines + b"Transfer-Encoding: Chunked\r\n\r\n" + chunks + b"0\r\nx-after: 1\r\n\r\n"
    if framing == "length":
        lines += b"Content-Length: %d\r\n" % sum(map(len, body))
    return interim + OK + lines + b"\r\n" + b"".join(body)


def oracle(data: bytes) -> tuple[int, bytes]:
    """Return status and body as another parser reads them."""
    parts: list[bytes] = []

    class Protocol:
        def on_body(self, part: bytes) -> None:
            parts.append(part)

    parser = httptools.HttpResponseParser(Protocol())
    parser.feed_data(data)
    return parser.get_status_code(), b"".join(parts)


@given(INTERIM, FIELDS, BODIES, st.sampled_from(["chunked", "length", "close"]), st.data())
def test_responses_do_not_depend_on_the_split(
    interim: bytes, fields: list[tuple[str, str]], body: list[bytes], framing: str, data: st.DataObject
) -> None:
    """A response is the same however its bytes are split, and the same as another parser reads it."""
    encoded = encode(interim, fields, body, framing)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    parts = [encoded[a:b] for a, b in pairwise([0, *cuts, len(encoded)]) if b > a]
    whole = Response(encoded, eof=True)
    assert Response(*parts, eof=True).facts == whole.facts
    assert Response(*(encoded[at : at + 1] for at in range(len(encoded))), eof=True).facts == whole.facts
    assert (whole.body.data, whole.is_whole, len(whole.heads)) == (b"".join(body), True, 1)
    assert whole.parser.keep_alive == (framing != "close")
    if not interim:
        assert oracle(encoded) == (whole.heads[0].status, whole.body.data)


@given(INTERIM, FIELDS, BODIES.filter(bool), st.sampled_from(["chunked", "length"]), st.data())
def test_truncated_responses_are_noticed(
    interim: bytes, fields: list[tuple[str, str]], body: list[bytes], framing: str, data: st.DataObject
) -> None:
    """A response that lacks its last bytes is not a whole one."""
    encoded = encode(interim, fields, body, framing)
    assert not Response(encoded[: data.draw(st.integers(0, len(encoded) - 1))], eof=True).is_whole


@given(st.lists(st.binary(max_size=30), max_size=6), st.sampled_from([b"", OK, CHUNKED, CHUNKED + b"5\r\nhello\r\n"]))
def test_any_bytes_are_parsed_or_rejected(noise: list[bytes], start: bytes) -> None:
    """Any bytes are parsed, or rejected with one error."""
    parser = ResponseParser(lambda head: Body())
    try:
        for part in (start, *noise):
            parser.feed(part)
    except InvalidResponseError:
        return


# The cases of nodejs/llhttp, test/response, where a client can be of use to its user.
@pytest.mark.parametrize(
    ("head", "body", "keep_alive"),
    [
        (b"HTTP/1.1 301\r\n", b"", False),
        (b"HTTP/1.1 200 \r\n", b"", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length:  5  \r\n", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nX-$Prototype-Version: 1\r\nDCLK_imp: v7;x\r\n.et-Cookie: a\r\n", b"hello", False),
        (b"HTTP/1.1 200 OK\nContent-Type: text/html\nConnection: close\n", b"no carriage return", False),
        (b"HTTP/1.0 301 Moved\r\nPragma: \r\nLocation: http://a/\r\nContent-Length: 2\r\n", b"ab", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n", b"body", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: foo, Close\r\n", b"hello", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n  b\r\nContent-Length: 2\r\n", b"ab", True),
    ],
)
def test_heads_of_another_parsers_tests(head: bytes, body: bytes, keep_alive: bool) -> None:
    """Unusual but usable heads are read, and the connection is kept only where the end of the body is certain."""
    response = Response(head + b"\r\n" + body, eof=True)
    assert (response.body.data, response.is_whole, response.parser.keep_alive) == (body, True, keep_alive)


@pytest.mark.parametrize(
    "chunks",
    [
        b"5;ilovew3;somuchlove=aretheseparametersfor\r\nhello\r\n6;blahblah;blah\r\n world\r\n0\r\n\r\n",
        b'5;ilovew3="I love; extensions";foo=bar\r\nhello\r\n6\r\n world\r\n0\r\n\r\n',
        b"5  \r\nhello\r\n006  \r\n world\r\n0  \r\n\r\n",
        b"5\nhello\n6\n world\n0\n\n",
        b"B\r\nhello world\r\n0\r\nVary: *\r\nContent-Type: text/plain\r\n\r\n",
    ],
)
def test_chunks_of_another_parsers_tests(chunks: bytes) -> None:
    """Chunks with extensions, spaces, leading zeros, bare line feeds and trailers are read."""
    response = Response(CHUNKED + chunks)
    assert (response.body.data, response.is_whole, response.parser.keep_alive) == (b"hello world", True, True)


@pytest.mark.parametrize("status", [204, 304])
def test_responses_without_a_body(status: int) -> None:
    """A response with a status that has no body ends with its head, whatever its fields say."""
    response = Response(b"HTTP/1.1 %d Nothing\r\nContent-Length: 5\r\n\r\n" % status)
    assert (response.is_whole, response.parser.keep_alive) == (True, True)


def test_surplus_bytes() -> None:
    """Bytes after the end of a response are ignored, and the connection is not used again."""
    for data in (OK + b"Content-Length: 2\r\n\r\nabX", CHUNKED + b"0\r\n\r\nX", b"HTTP/1.1 204 No\r\n\r\nX"):
        response = Response(data)
        assert (response.is_whole, response.parser.keep_alive) == (True, False)


def test_a_body_framed_twice() -> None:
    """A body with chunks and a length is read as chunks, and the connection is not used again."""
    response = Response(OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
    assert (response.body.data, response.is_whole, response.parser.keep_alive) == (b"a", True, False)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTPER/1.1 200 OK\r\n\r\n",
        b"RTSP/1.1 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"space : before\r\n\r\n",
        OK + b"nul: \0\r\n\r\n",
        OK + b": no name\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\n",
        OK + b"Content-Length: 0x1\r\n\r\n",
        OK + b"Content-Length: 1_0\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Content-Length: \r\n\r\n",
        OK + b"Transfer-Encoding: \r\nContent-Length: 5\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, deflate\r\n\r\n",
        OK + b"Transfer-Encoding: chunkedchunked\r\n\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"+1\r\n",
        CHUNKED + b"0x1\r\n",
        CHUNKED + b"1_0\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"2 erfrferferf\r\naa\r\n",
        CHUNKED + b"g\r\n",
        CHUNKED + b"\xd9\xa1\r\n",
        CHUNKED + b"f" * 16 + b"\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"1\r\na\rb",
    ],
)
def test_invalid_responses(data: bytes) -> None:
    """Invalid heads, lengths and chunks are rejected, at once or byte by byte."""
    with pytest.raises(InvalidResponseError):
        Response(data)
    with pytest.raises(InvalidResponseError):
        Response(*(data[at : at + 1] for at in range(len(data))))


@pytest.mark.parametrize(
    ("start", "flood"),
    [
        (b"", b"HTTP/1.1 200 " + b"x" * 1000),
        (OK, b"x-a: " + b"x" * 1000 + b"\r\n"),
        (OK, b"x-a: b\r\n"),
        (OK + b"x: ", b"y"),
        (b"", b"HTTP/1.1 102 Processing\r\nx-a: " + b"x" * 1000 + b"\r\n\r\n"),
        (CHUNKED, b"0000000000"),
        (CHUNKED + b"5;", b"extension"),
        (CHUNKED, b"1;" + b"x" * 1000 + b"\r\na\r\n"),
        (CHUNKED + b"0\r\n", b"x-a: b\r\n"),
        (CHUNKED + b"0\r\nx: ", b"y" * 1000),
    ],
)
def test_floods_are_limited(start: bytes, flood: bytes) -> None:
    """Endless heads, interim responses, size lines, extensions and trailers are rejected in bounded memory."""
    parser = ResponseParser(lambda head: Body())
    parser.feed(start)

    def feed() -> None:
        for _ in range(100_000):
            parser.feed(flood)
            assert len(parser._buffer) <= 2 * MAX_HEAD

    with pytest.raises(InvalidResponseError):
        feed()


def test_too_many_fields() -> None:
    """A head or trailer with more than 100 fields is rejected, also if it is short."""
    Response(OK + b"a: b\r\n" * 100 + b"\r\n")
    for data in (OK + b"a: b\r\n" * 101 + b"\r\n", CHUNKED + b"0\r\n" + b"a: b\r\n" * 101 + b"\r\n"):
        with pytest.raises(InvalidResponseError):
            Response(data)


def test_many_small_chunks_cost_little() -> None:
    """Many small chunks in one part are read in linear time."""
    assert Response(CHUNKED + b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n").body.data == b"a" * 200_000


# Compressed bodies.

TEXT = b"data: hello\n\n" * 10_000


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("X-GZip", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT, wbits=-15)),
        ("identity", TEXT),
        ("", TEXT),
    ],
)
def test_compressed_bodies(coding: str, data: bytes) -> None:
    """A compressed body is decompressed, however it is split."""
    for size in (1, 7, len(data)):
        body = Body()
        receiver = decoded(body, coding)
        for at in range(0, len(data), size):
            receiver.feed(data[at : at + size])
        receiver.end()
        assert (body.data, body.ended) == (TEXT, True)


def test_invalid_compressed_bodies() -> None:
    """An unknown coding, invalid data and a truncated body are rejected."""
    with pytest.raises(InvalidResponseError):
        decoded(Body(), "br")
    with pytest.raises(InvalidResponseError):
        decoded(Body(), "gzip").feed(b"not compressed")
    receiver = decoded(Body(), "gzip")
    receiver.feed(gzip.compress(TEXT)[:-8])
    with pytest.raises(InvalidResponseError):
        receiver.end()


def test_decompression_stops_with_the_receiver() -> None:
    """A small body that becomes a very large one is decompressed only as far as it is needed."""
    body = Body(limit=1000)
    receiver = decoded(body, "gzip")
    receiver.feed(gzip.compress(bytes(1 << 28)))
    assert receiver.done
    assert len(body.data) <= 1 << 16
