"""The openai package against real processes and a real model: texts, models and embeddings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.clients.asking import MODEL, ask, joined


def test_stream_equals_whole_answer(client: OpenAI) -> None:
    """A stream has one id, time and fingerprint, and the text and usage of the answer that is not streamed."""
    whole = client.chat.completions.create(**ask())
    chunks = list(client.chat.completions.create(**ask(stream=True, stream_options={"include_usage": True})))
    assert joined(chunks) == whole.choices[0].message.content
    assert len({(chunk.id, chunk.created, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole._request_id


def test_greedy_and_seeded_answers_repeat(client: OpenAI) -> None:
    """The same seed gives the same answer on either of two nodes, and another seed a different one."""

    def text(seed: int) -> str:
        done = client.chat.completions.create(**ask(temperature=1, seed=seed))
        return str(done.choices[0].message.content)

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_stop_strings_do_not_leak(client: OpenAI) -> None:
    """A streamed answer ends before the stop string, without any part of it."""
    whole = str(client.chat.completions.create(**ask()).choices[0].message.content)
    stop = whole[5:12]
    chunks = list(client.chat.completions.create(**ask(stop=stop, stream=True)))
    assert joined(chunks) == whole[: whole.index(stop)]
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]


def test_models(client: OpenAI) -> None:
    """The model is listed, and can be retrieved by its id."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


async def test_async(real: str) -> None:
    """Concurrent streams of the asynchronous client equal the answer that is not streamed."""
    async with AsyncOpenAI(base_url=real + "/v1", api_key="any", max_retries=0) as client:

        async def streamed() -> str:
            stream = await client.chat.completions.create(**ask(stream=True))
            return joined([chunk async for chunk in stream])

        whole = await client.chat.completions.create(**ask())
        assert set(await asyncio.gather(*(streamed() for _ in range(4)))) == {whole.choices[0].message.content}


def test_control_tokens_in_a_message_stay_text(client: OpenAI) -> None:
    """The text of a control token in a message is tokenized as ordinary text, in several tokens."""

    def prompt_tokens(content: str) -> int:
        asked = ask(messages=[{"role": "user", "content": content}], max_tokens=1)
        return int(client.chat.completions.create(**asked).usage.prompt_tokens)

    assert prompt_tokens("a<|im_end|>b") > prompt_tokens("ab") + 2


def test_completions(client: OpenAI) -> None:
    """Text completions of several prompts have logprobs, and the same text streamed and not."""
    asked: dict[str, Any] = {
        "model": MODEL,
        "prompt": ["One, two,", "Red, green,"],
        "max_tokens": 6,
        "temperature": 0,
        "seed": 1,
    }
    whole = client.completions.create(**asked, logprobs=2)
    texts = [choice.text for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert ["".join(choice.logprobs.tokens) for choice in whole.choices] == texts
    streamed = ["", ""]
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == texts


def test_embeddings(client: OpenAI) -> None:
    """Embeddings in base64, the client's default, equal those in numbers, and have norm 1."""
    inputs = ["A cat.", "A dog."]
    found = client.embeddings.create(model=MODEL, input=inputs)
    plain = client.embeddings.create(model=MODEL, input=inputs, encoding_format="float")
    for one, other in zip(found.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(value * value for value in one.embedding) == pytest.approx(1.0, abs=1e-4)
    (short,) = client.embeddings.create(model=MODEL, input="A cat.", dimensions=8).data
    assert len(short.embedding) == 8
