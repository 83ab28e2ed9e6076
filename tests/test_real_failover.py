"""The real model in processes that are killed: what the API does not offer yet, by way of the library."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from adapter.prompt import load_tokenizer
from subnet import Limits, RemoteManager, Sampling, SessionManager
from subnet.client.policies import Policy
from subnet.client.remote import Remote
from subnet.generation import Grammar
from subnet.node_info import TokenizerArtefact

PROMPT = "<|im_start|>user\nDescribe a cat as JSON with name and age.<|im_end|>\n<|im_start|>assistant\n"
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)
KINDS = {
    "greedy": Sampling(temperature=0.0, max_tokens=16),
    "seeded": Sampling(seed=11, max_tokens=16),
    "logprobs": Sampling(seed=11, max_tokens=16, logprobs=3),
    "penalties": Sampling(seed=11, max_tokens=16, frequency_penalty=1.2, presence_penalty=0.6),
    "json schema": Sampling(seed=11, max_tokens=60, grammar=Grammar("json_schema", SCHEMA)),
}


@asynccontextmanager
async def node(port: int = 0) -> AsyncIterator[tuple[Process, str]]:
    """A process with the real model; its address."""
    command = [sys.executable, "-m", "subnet.cli", "node", "--port", str(port)]
    options = ["--context-length", "512", "--threads", "1", "--log-level", "error"]
    process = await asyncio.create_subprocess_exec(*command, *options, stdin=DEVNULL, stdout=PIPE)
    try:
        assert process.stdout is not None
        while (match := re.search(rb"on (http://\S+)", line := await process.stdout.readline())) is None:
            assert line
        yield process, match[1].decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def artefact(manager: RemoteManager) -> TokenizerArtefact:
    card = next(iter(manager.models().values()))
    return TokenizerArtefact.from_bytes(await manager.artefact(card.tokenizer))


async def prompt_tokens(manager: RemoteManager) -> list[int]:
    return [int(token) for token in load_tokenizer(await artefact(manager)).encode_prompt(PROMPT)]


Answer = list[tuple[list[int], list[object], object]]


async def ask(
    manager: RemoteManager,
    prompt: list[int],
    sampling: Sampling,
    choices: int,
    on_delta: Callable[[], None] | None = None,
) -> Answer:
    """Tokens, logprobs and finish reason of each choice; `on_delta` is called at every delta."""
    answers: Answer = [([], [], None) for _ in range(choices)]
    async with SessionManager(manager, limits=Limits(patience=60.0)).session() as session:
        async for delta in session.generate(prompt, sampling, choices=choices):
            tokens, logprobs, reason = answers[delta.choice]
            assert reason is None
            tokens += delta.tokens
            logprobs += delta.logprobs or []
            answers[delta.choice] = tokens, logprobs, delta.finish_reason
            if on_delta is not None:
                on_delta()
    return answers


class Prefer(Policy):
    """One node as long as it is there."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def choose(self, candidates: Sequence[Remote], *_: object) -> Remote:
        return next((remote for remote in candidates if remote.peer == self._peer), candidates[0])


@pytest.mark.parametrize(
    ("kind", "choices"), [("greedy", 1), *((kind, 2) for kind in KINDS)], ids=lambda value: str(value)
)
async def test_killed_in_the_middle(kind: str, choices: int) -> None:
    """With each feature, an answer whose node is killed is the answer of an undisturbed run, to the last bit."""
    async with AsyncExitStack() as stack:
        (_, stable), (victim, address) = [await stack.enter_async_context(node()) for _ in range(2)]
        manager = await stack.enter_async_context(RemoteManager([stable, address], policy=Prefer(address)))
        await both_ready(manager)
        prompt = await prompt_tokens(manager)
        whole = await ask(manager, prompt, KINDS[kind], choices)
        if kind == "json schema":
            pieces = (await artefact(manager)).pieces
            for tokens, _, _ in whole:
                assert set(json.loads(b"".join(pieces[token] for token in tokens))) == {"name", "age"}
        left = 7 * choices

        def kill() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                victim.kill()

        assert await ask(manager, prompt, KINDS[kind], choices, kill) == whole
        assert left <= 0
        assert await victim.wait() == -signal.SIGKILL


async def both_ready(manager: RemoteManager) -> None:
    while any(remote.fault is not None for remote in manager.remotes):
        await asyncio.sleep(0.02)
