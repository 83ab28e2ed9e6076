"""Real clients against real processes and the real model."""

from __future__ import annotations

import asyncio
import json
import subprocess

import httpx
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionChunk

MODEL = "SmolLM2-135M-Instruct"
ASK = [{"role": "user", "content": "Name three colours."}]


def ask(**more: object) -> dict[str, object]:
    return {"model": MODEL, "messages": ASK, "max_tokens": 24, "seed": 5, "temperature": 0, **more}


@pytest.fixture
def client(real: str) -> OpenAI:
    return OpenAI(base_url=real + "/v1", api_key="any", max_retries=0)


def joined(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_openai_streaming_and_not_agree(client: OpenAI) -> None:
    """The chunks make up the message; ids, created and fingerprint are the same throughout; usage is the same."""
    whole = client.chat.completions.create(**ask())  # type: ignore[call-overload]
    chunks = list(client.chat.completions.create(**ask(stream=True, stream_options={"include_usage": True})))  # type: ignore[call-overload]
    assert joined(chunks) == whole.choices[0].message.content
    assert len({(chunk.id, chunk.created, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole._request_id


def test_greedy_and_seeded_answers_repeat(client: OpenAI) -> None:
    """The same seed gives the same answer, on whichever of the two nodes; another seed another."""

    def text(seed: int) -> str:
        done = client.chat.completions.create(**ask(temperature=1, seed=seed))  # type: ignore[call-overload]
        return str(done.choices[0].message.content)

    assert text(1) == text(1) == text(1)
    assert text(1) != text(2)


def test_stop_strings_do_not_leak(client: OpenAI) -> None:
    """The answer ends before the stop string, of which nothing is shown."""
    whole = str(client.chat.completions.create(**ask()).choices[0].message.content)  # type: ignore[call-overload]
    stop = whole[5:12]
    chunks = list(client.chat.completions.create(**ask(stop=stop, stream=True)))  # type: ignore[call-overload]
    assert joined(chunks) == whole[: whole.index(stop)]
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]


def test_openai_errors_are_typed(client: OpenAI) -> None:
    """An unknown model is NotFoundError, a prompt that is too long BadRequestError with OpenAI's code."""
    with pytest.raises(NotFoundError) as missing:
        client.chat.completions.create(**ask(model="gpt-nowhere"))  # type: ignore[call-overload]
    assert missing.value.code == "model_not_found"
    long = [{"role": "user", "content": "word " * 20_000}]
    with pytest.raises(BadRequestError) as exceeded:
        client.chat.completions.create(**ask(messages=long))  # type: ignore[call-overload]
    assert exceeded.value.code == "context_length_exceeded"


def test_openai_models(client: OpenAI) -> None:
    """The model is listed, and can be had by name."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


async def test_openai_async(real: str) -> None:
    """The asynchronous client, streaming and not, several at once."""
    async with AsyncOpenAI(base_url=real + "/v1", api_key="any", max_retries=0) as client:

        async def streamed() -> str:
            stream = await client.chat.completions.create(**ask(stream=True))  # type: ignore[call-overload]
            return joined([chunk async for chunk in stream])

        whole = await client.chat.completions.create(**ask())  # type: ignore[call-overload]
        assert set(await asyncio.gather(*(streamed() for _ in range(4)))) == {whole.choices[0].message.content}


def test_langchain(real: str) -> None:
    """invoke, stream and batch say the same."""
    model = ChatOpenAI(base_url=real + "/v1", api_key="any", model=MODEL, max_tokens=16, temperature=0, seed=1)  # type: ignore[arg-type, call-arg]
    whole = model.invoke("Name an animal.")
    assert whole.content
    assert whole.usage_metadata is not None
    assert "".join(str(chunk.content) for chunk in model.stream("Name an animal.")) == whole.content
    assert [answer.content for answer in model.batch(["Name an animal."] * 3)] == [whole.content] * 3


async def test_langchain_async(real: str) -> None:
    """astream yields the answer piece by piece."""
    model = ChatOpenAI(base_url=real + "/v1", api_key="any", model=MODEL, max_tokens=16, temperature=0)  # type: ignore[arg-type, call-arg]
    pieces = [str(chunk.content) async for chunk in model.astream("Name an animal.")]
    assert len([piece for piece in pieces if piece]) > 3


def test_curl(real: str) -> None:
    """curl gets a JSON answer, and events that end with [DONE]."""

    def curl(**more: object) -> str:
        body = json.dumps(ask(**more))
        command = ["curl", "-sN", f"{real}/v1/chat/completions", "-H", "content-type: application/json", "-d", body]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert json.loads(curl())["choices"][0]["message"]["content"]
    assert curl(stream=True).endswith("data: [DONE]\n\n")


def test_control_tokens_in_a_message_stay_text(client: OpenAI) -> None:
    """Text that spells a control token costs several tokens: it is no control token."""

    def prompt_tokens(content: str) -> int:
        asked = ask(messages=[{"role": "user", "content": content}], max_tokens=1)
        return int(client.chat.completions.create(**asked).usage.prompt_tokens)  # type: ignore[call-overload]

    assert prompt_tokens("a<|im_end|>b") > prompt_tokens("ab") + 2


def test_health(real: str) -> None:
    """Alive, and ready."""
    assert httpx.get(real + "/healthz").status_code == 200
    assert httpx.get(real + "/readyz").status_code == 200
    assert httpx.get(real + "/openapi.json").json()["openapi"].startswith("3.")
