"""The same load without a gateway: tokens are requested from a node as a gateway does."""

from __future__ import annotations

import asyncio
from time import perf_counter

import numpy as np

from subnet.generation import Delta, Sampling
from subnet.protocols.websocket import WebSocketProtocol
from subnet.tensors import pack, token_ids
from subnet.wire.messages import ChoiceStart, Generate
from tests.bench.load import Load, each, numbers

_PROMPT = pack(np.arange(40, dtype=np.int32))
_START = ChoiceStart(0, pack(token_ids([])))


async def first_tokens(url: str, load: Load) -> list[tuple[int, float]]:
    """Return the seed of each answer and the seconds to its first token, in the order in which the answers ended; all
    have the same length.
    """
    node, waited = WebSocketProtocol(url), list[tuple[int, float]]()

    async def ask(stream: int) -> None:
        number, begin, first = next(numbers), perf_counter(), 0.0

        def take(delta: Delta) -> None:
            nonlocal first
            first = first or perf_counter() - begin

        sampling = Sampling(seed=number, max_tokens=load.tokens, top_p=0.5)
        await node.rpc_inference(Generate(model=None, prompt=_PROMPT, sampling=sampling, starts=(_START,)), take)
        waited.append((number, first))

    try:
        await asyncio.gather(*each(load, ask))
    finally:
        await node.aclose()
    return waited
