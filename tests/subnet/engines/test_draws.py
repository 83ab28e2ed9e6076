"""What a server's seeds do, found out by what it draws, and the seeds of continuations that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import count as numbers

import pytest

from subnet.engines.job import to_job
from subnet.engines.remote.draws import draws_by_position
from subnet.engines.vllm import VllmEngine
from subnet.errors import InvalidRequest
from subnet.generation import Job, Sampling, Start, derive_seed
from subnet.http.node_spec import NodeSpec
from subnet.node_info import Capabilities
from subnet.tensors import pack, token_ids
from subnet.wire.messages import ChoiceStart, Generate
from tests.recorded import Draw, recorded

VOCABULARY = 50_000
fresh_seeds = numbers()


def by_position(prompt: list[int], seed: int, count: int) -> list[int]:
    """Draw as vLLM's V2 runner: by seed, position and the tokens before."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(hashed(*tokens, seed, len(tokens)))
    return tokens[len(prompt) :]


def by_request(prompt: list[int], seed: int, count: int) -> list[int]:
    """Draw as vLLM's V1 runner: by a generator that starts anew for each request."""
    tokens = list(prompt)
    for number in range(count):
        tokens.append(hashed(*tokens, seed, number))
    return tokens[len(prompt) :]


def at_random(prompt: list[int], seed: int, count: int) -> list[int]:
    """Draw without regard to the seed, as SGLang without deterministic inference."""
    return by_position(prompt, next(fresh_seeds), count)


def certain(prompt: list[int], seed: int, count: int) -> list[int]:
    """Draw the same whatever the seed, as a model that is sure of its next token."""
    return by_position(prompt, 0, count)


def ends_at_once(prompt: list[int], seed: int, count: int) -> list[int]:
    return []


def hashed(*values: int) -> int:
    return int.from_bytes(blake2b(repr(values).encode(), digest_size=8).digest()) % VOCABULARY


SERVERS: dict[str, tuple[Draw, bool]] = {
    "by position": (by_position, True),
    "by request": (by_request, False),
    "at random": (at_random, False),
    "certain": (certain, False),
    "ends at once": (ends_at_once, False),
}


@pytest.mark.parametrize("name", SERVERS)
async def test_draws_are_told_apart(name: str) -> None:
    """Only a server that goes on with its draws, and whose seed matters, draws by position."""
    server, positional = SERVERS[name]

    async def draw(prompt: Sequence[int], seed: int, count: int) -> list[int]:
        return server(list(prompt), seed, count)

    assert await draws_by_position(draw, [1]) is positional


@pytest.mark.parametrize("draw", [by_position, by_request, None])
async def test_the_seed_of_a_continuation(draw: Draw | None) -> None:
    """The same seed goes on where draws go by position; elsewhere, or if it is unknown, the position is part of it."""
    async with recorded("vllm") as server:
        server.active, server.draw = {"greedy"}, draw
        async with VllmEngine(NodeSpec(url=server.url)) as engine:
            assert engine.capabilities.positional_draws is (draw is by_position)
            starts = (Start(2, token_ids([]), position=2),)
            await engine.run(Job(token_ids([1, 2, 3]), Sampling(seed=5), starts), lambda delta: None)
        assert [body["seed"] for body in server.requests] == [derive_seed(5, 2, 0 if draw is by_position else 2)]


def test_the_position_reaches_the_engine() -> None:
    """An engine gets the position of a continuation from its request, which must lie within the prompt."""

    def job(position: int) -> Job:
        start = ChoiceStart(0, pack(token_ids([])), position)
        prompt = pack(token_ids([1, 2, 3]))
        return to_job(Generate(model=None, prompt=prompt, sampling=Sampling(), starts=(start,)), Capabilities())

    assert [job(position).starts[0].position for position in (0, 3)] == [0, 3]
    for position in (-1, 4):
        with pytest.raises(InvalidRequest, match="position"):
            job(position)
