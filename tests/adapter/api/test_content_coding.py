"""Compressed request bodies."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.common.content_coding import check_content_coding, decode_body
from adapter.config import Settings
from adapter.errors import BadRequest
from tests.fakes import ASK, gateway, saying

CHAT = "/v1/chat/completions"
BODY = json.dumps(ASK).encode()
LIMIT = 1 << 20
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "X-GZIP": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": lambda data: zlib.compress(data, wbits=-15),
}


async def post(body: bytes, coding: str, path: str = CHAT) -> httpx.Response:
    settings = Settings(access_log=False, max_body=LIMIT)
    async with gateway(saying("Hi"), settings=settings) as url, httpx.AsyncClient(base_url=url) as http:
        return await http.post(path, content=body, headers={b"content-encoding": coding.encode("latin-1")})


@pytest.mark.parametrize("coding", CODERS)
async def test_compressed_bodies(coding: str) -> None:
    """Bodies in gzip and deflate, with zlib's header or without, are read as if they were not compressed."""
    response = await post(CODERS[coding](BODY), coding)
    assert response.json()["choices"][0]["message"]["content"] == "Hi"


@given(st.lists(st.binary(max_size=20_000), min_size=1, max_size=5))
async def test_members_of_gzip(members: list[bytes]) -> None:
    """The members of a body in gzip are read one after the other, and the last must be complete."""
    body = b"".join(map(gzip.compress, members))
    assert await decode_body(body, "gzip", 200_000) == b"".join(members)
    with pytest.raises(BadRequest):
        await decode_body(body[:-1], "gzip", 200_000)


async def test_many_members_of_gzip() -> None:
    """The cost is that of the body, though it may have a hundred thousand members: copying the rest after each, as
    this once did, takes time that is quadratic.
    """
    body = gzip.compress(b"") * 100_000 + gzip.compress(BODY)
    assert await decode_body(body, "gzip", LIMIT) == BODY


async def test_what_follows_gzip_is_ignored() -> None:
    """Also where it looks like the start of a member later on."""
    assert await decode_body(gzip.compress(BODY) + b"\0" + b"\x1f" * 20_000, "gzip", LIMIT) == BODY


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/tokenize"])
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "é"])
async def test_other_codings(coding: str, path: str) -> None:
    """Other codings get status 415 and the supported ones, on every endpoint."""
    response = await post(BODY, coding, path)
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate"
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "unsupported_content_encoding")


@pytest.mark.parametrize(
    "body",
    [b"", b"x", BODY, gzip.compress(BODY)[:-1], gzip.compress(BODY)[:20], zlib.compress(BODY)],
    ids=["empty", "letter", "plain", "without its end", "cut", "deflate"],
)
async def test_bodies_that_are_not_in_their_coding(body: bytes) -> None:
    """A body that cannot be decompressed gets status 400."""
    response = await post(body, "gzip")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_content_encoding"


async def test_a_small_body_that_becomes_large() -> None:
    """What counts is the size of the decompressed body."""
    response = await post(gzip.compress(bytes(LIMIT + 1)), "gzip")
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


async def test_a_body_as_large_as_allowed() -> None:
    """A body of exactly the maximum size is read, in a thread."""
    body = BODY + b" " * (LIMIT - len(BODY))
    assert (await post(gzip.compress(body), "gzip")).status_code == 200


@given(st.binary(max_size=1000), st.sampled_from(["gzip", "deflate"]))
async def test_decoding_undoes_encoding(data: bytes, coding: str) -> None:
    """Any bytes can be compressed and decompressed."""
    assert await decode_body(CODERS[coding](data), check_content_coding(coding), 1000) == data


@pytest.mark.parametrize("value", [None, "", "identity", "Identity"])
async def test_no_coding(value: str | None) -> None:
    """A body without a coding is left as it is."""
    assert await decode_body(BODY, check_content_coding(value), 1) is BODY
