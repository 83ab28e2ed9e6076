"""What a node may send for calls that have ended or never were, and how much may wait for a node that does not read."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from subnet import MockProtocol
from subnet.errors import NodeBusy, WireError
from subnet.generation import Delta, TokenLogprobs
from subnet.tensors import pack, token_ids
from subnet.wire import columns
from subnet.wire.messages import (
    MAX_DIMENSIONS,
    Accepted,
    Cancel,
    Deltas,
    EmbedReply,
    EmbedRequest,
    Failed,
    InfoReply,
    Message,
    ScoreReply,
    ScoreRequest,
)
from tests.subnet.protocols.test_connection import END, REQUEST, NodeEnd, deltas, node


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Accepted(7), "answered a call that does not exist"),
        (Failed(7, "node_error", "no"), "answered a call that does not exist"),
        (EmbedReply(7, pack(np.zeros((1, 1), np.float32))), "answered a call that does not exist"),
        (deltas(7, Delta(0, [1])), "sent tokens of calls that do not exist"),
        (Deltas(b"", b"", b"", b"", b""), "sent tokens of calls that do not exist"),
        (columns.pack([(1, Delta(0, [])), (7, Delta(0, [1]))]), "sent tokens of calls that do not exist"),
    ],
)
async def test_answers_to_calls_that_never_were(answer: Message, reason: str) -> None:
    """A message for a call that the client never opened closes the connection."""

    async def script(end: NodeEnd) -> None:
        await end.receive_generate()
        await end.send(answer)
        await end.socket.receive()

    async with node(script) as client:
        with pytest.raises(WireError, match=reason):
            await client.rpc_inference(REQUEST, lambda delta: None)


@pytest.mark.parametrize("answer", [Accepted(1), Failed(1, "node_error", "no"), deltas(1, *[Delta(0, [1])] * 4096)])
async def test_late_answers_are_ignored_but_not_endless_ones(answer: Message) -> None:
    """What was on the way when a call ended is ignored; a node that goes on like that is disconnected."""
    reasons = []

    async def script(end: NodeEnd) -> None:
        await end.send(deltas(await end.receive_generate(), END))
        await end.send(answer, answer)
        await end.reply_info()
        for _ in range(500):
            await end.send(answer)
        reasons.append((await end.socket.receive()).extra)

    async with node(script) as client:
        await client.rpc_inference(REQUEST, lambda delta: None)
        assert (await client.rpc_info()).engine == "mock"
        while not reasons:
            await asyncio.sleep(0.001)
    assert reasons == [WireError.code]


async def test_tokens_of_cancelled_calls_are_ignored() -> None:
    """Rows for a call that was cancelled are ignored, and the other calls go on."""
    received: list[Delta] = []
    cancelled = asyncio.Event()

    async def script(end: NodeEnd) -> None:
        first, second = await end.receive_generate(), await end.receive_generate()
        await end.send(Accepted(first), Accepted(second))
        cancelled.set()
        assert await end.receive() == Cancel(first)
        for _ in range(100):
            await end.send(columns.pack([(first, Delta(0, [1]))] * 3 + [(second, Delta(0, [2]))]))
        await end.send(deltas(second, END))
        await end.socket.receive()

    async with node(script) as client:
        first = asyncio.create_task(client.rpc_inference(REQUEST, lambda delta: None))
        await asyncio.sleep(0)
        second = asyncio.create_task(client.rpc_inference(REQUEST, received.append))
        await cancelled.wait()
        first.cancel()
        await second
    assert len(received) == 101


async def test_a_node_that_does_not_read() -> None:
    """A node that does not read is busy once enough requests wait for it, and they do not fill the memory."""
    failed = asyncio.Event()

    async def script(end: NodeEnd) -> None:
        # The socket is not read any more, as this handler does not ask for a message.
        await failed.wait()

    async with node(script) as client:
        texts = [token_ids([1] * 2_000_000)]
        calls = [asyncio.create_task(client.rpc_embed(texts)) for _ in range(30)]
        # Eight megabytes each: sixty-four, and what the kernel holds, may wait.
        while len(refused := [call for call in calls if call.done()]) < 15:
            await asyncio.sleep(0.001)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        failed.set()
    errors = [call.exception() for call in refused]
    assert all(isinstance(error, NodeBusy) and "has not read" in error.message for error in errors)


async def test_results_of_impossible_sizes() -> None:
    """Embeddings of too many dimensions or of different sizes, and more alternatives than requested, are refused."""
    sizes = iter([MAX_DIMENSIONS + 1, 3, 4])

    async def script(end: NodeEnd) -> None:
        while True:
            match await end.receive():
                case EmbedRequest(call=call, inputs=inputs):
                    await end.send(EmbedReply(call, pack(np.zeros((len(inputs), next(sizes)), np.float32))))
                case ScoreRequest(call=call):
                    entry = TokenLogprobs(-1.0, (5, 6), (-1.0, -2.0))
                    await end.send(ScoreReply(call, columns.pack_logprobs([entry])))
                case message:
                    await end.send(InfoReply(message.call, await MockProtocol().rpc_info()))  # type: ignore[union-attr]

    async with node(script) as client:
        with pytest.raises(WireError, match="of shape"):
            await client.rpc_embed([token_ids([1])])
        with pytest.raises(WireError, match="of different sizes"):
            await client.rpc_embed([token_ids([1])] * 257)
        with pytest.raises(WireError, match="2 alternatives of a token instead of 1"):
            await client.rpc_score(token_ids([1, 2]), 1)
