"""What the seeds of a server do: some draw by seed and position, others start a random generator for each request.

vLLM's V2 model runner (the default on GPUs since 0.32) and SGLang with --enable-deterministic-inference draw each token
by seed and position, so that a continuation with the same seed goes on with the same draws. vLLM's V1 runner and
llama-server start anew: a continuation with the same seed would repeat the draws of the answer's beginning, so the
position is made part of the seed. No server says which it is, so it is found out by what it draws.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.remote_model import Model, text_token
from subnet.errors import NodeError, NodeLost, RequestError
from subnet.generation import Delta, Job, Sampling, Start, derive_seed
from subnet.node_info import TokenizerArtefact
from subnet.tensors import token_ids

PROBE_TEMPERATURE = 2.0
"""So high that two draws are hardly ever equal by chance."""
_TOKENS = 6
# Time for all requests of a probe, in seconds.
_TIMEOUT = 10.0

Generate = Callable[[Model, Job, ChoiceOutput], Awaitable[None]]
Draw = Callable[[Sequence[int], int, int], Awaitable[list[int]]]
"""Returns tokens that a server draws after a prompt: (prompt, seed, number of tokens)."""


def draw_seed(sampling: Sampling, output: ChoiceOutput, *, positional: bool, bits: int = 63) -> int:
    """Return the seed of a request for the rest of a choice, for a server whose draws are `positional` or not."""
    return derive_seed(sampling.seed, output.index, 0 if positional else output.position, bits)


async def with_positional_draws(model: Model, generate: Generate) -> Model:
    """Return `model` with the capability `positional_draws` if its server has it. Raises NodeLost.

    A server that refuses or does not answer in time counts as one without it, which is safe: answers are replayed.
    """

    async def draw(prompt: Sequence[int], seed: int, count: int) -> list[int]:
        sampling = Sampling(temperature=PROBE_TEMPERATURE, seed=seed, max_tokens=count, ignore_eos=True)
        output = ChoiceOutput(0, sampling, (), count, _ignore)
        await generate(model, Job(token_ids(prompt), sampling, (Start(0, token_ids([])),)), output)
        return output.tokens

    prompt = [text_token(TokenizerArtefact.from_bytes(model.artefact).pieces)]
    try:
        async with asyncio.timeout(_TIMEOUT):
            positional = await draws_by_position(draw, prompt)
    except NodeLost:
        raise
    except (TimeoutError, NodeError, RequestError):
        positional = False
    capabilities = msgspec.structs.replace(model.capabilities, positional_draws=positional)
    return msgspec.structs.replace(model, capabilities=capabilities)


async def draws_by_position(draw: Draw, prompt: Sequence[int], seed: int = 1) -> bool:
    """Return whether a continuation with the same seed draws what the answer itself drew.

    It must also differ with another seed: a model that is too sure of its next tokens shows nothing.
    """
    whole = await draw(prompt, seed, _TOKENS)
    half = _TOKENS // 2
    begun = [*prompt, *whole[:half]]
    if len(whole) < _TOKENS or await draw(begun, seed, _TOKENS - half) != whole[half:]:
        return False
    return await draw(begun, seed + 1, _TOKENS - half) != whole[half:]


def _ignore(delta: Delta) -> None:
    pass
