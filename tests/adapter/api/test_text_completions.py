"""POST /v1/completions over HTTP, with scripted nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from adapter.config import Settings
from subnet.errors import EngineFailed, InvalidRequest, NodeLost
from subnet.generation import Delta, TokenLogprobs
from subnet.node_info import Capabilities
from subnet.protocols.base import Protocol
from subnet.protocols.mock import MockProtocol, Pause, Step
from subnet.tensors import unpack
from subnet.wire.messages import Generate
from tests.fakes import events_of, gateway, saying

PATH = "/v1/completions"
ASK = {"model": "mock", "prompt": "Once"}
ABLE = Capabilities(resume="exact", top_logprobs=5, prompt_logprobs=True, grammars=("json_schema",))


@asynccontextmanager
async def asking(*nodes: Protocol, settings: Settings | None = None) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(*nodes, settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def ask(*nodes: Protocol, **fields: Any) -> Any:
    """Return a successful response; the fake gateway validates it against OpenAI's types."""
    async with asking(*nodes) as client:
        response = await client.post(PATH, json={**ASK, **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def stream(*nodes: Protocol, **fields: Any) -> list[Any]:
    """Return the events of an answer, without comments and the final [DONE]."""
    async with asking(*nodes) as client:
        response = await client.post(PATH, json={**ASK, "stream": True, **fields})
    blocks = [block for block in response.content.split(b"\n\n") if not block.startswith(b":")]
    *events, done = events_of(b"\n\n".join(blocks))
    assert done == "[DONE]"
    return events


async def refusal(*nodes: Protocol, **fields: Any) -> tuple[int, str | None, str | None]:
    async with asking(*nodes) as client:
        response = await client.post(PATH, json={**ASK, **fields})
    error = response.json()["error"]
    return response.status_code, error["param"], error["code"]


def prompt_of(request: Generate) -> str:
    return bytes(unpack(request.prompt).tolist()).decode()


def repeating() -> MockProtocol:
    """Create a node that answers with its prompt in capitals."""
    return MockProtocol(lambda request: [*prompt_of(request).upper().encode()], capabilities=ABLE)


def likely(*texts: Sequence[tuple[str, float]], **options: Any) -> MockProtocol:
    """Create a node whose choice i has the text texts[i], pairs of a letter and its logprob; "z" is always likelier."""

    def deltas() -> list[Step]:
        found: list[Step] = []
        for choice, text in enumerate(texts):
            for letter, logprob in text:
                tops = TokenLogprobs(logprob, (ord("z"), ord(letter)), (-0.01, logprob))
                found.append(Delta(choice, [ord(letter)], [tops]))
        return found

    return MockProtocol(deltas(), capabilities=ABLE, **options)


async def test_answer() -> None:
    """A completion sends the prompt unchanged to the node, and has at most 16 tokens by default."""
    node = saying("x" * 20)
    answer = await ask(node)
    assert answer.pop("id").startswith("cmpl-")
    assert answer.pop("created") > 0
    assert answer.pop("system_fingerprint").startswith("fp_")
    assert answer == {
        "object": "text_completion",
        "model": "mock",
        "choices": [{"index": 0, "text": "x" * 16, "logprobs": None, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 16,
            "total_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    assert (prompt_of(node.requests[0]), node.requests[0].text) == ("Once", "Once")


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [("ab", ["AB"]), (["ab", "c"], ["AB", "C"]), ([97, 98], ["AB"]), ([[97], [98, 99]], ["A", "BC"])],
)
async def test_forms_of_prompts(prompt: Any, texts: list[str]) -> None:
    """Prompts as texts or token ids each get an answer, and one usage counts them all."""
    answer = await ask(repeating(), prompt=prompt)
    assert [choice["text"] for choice in answer["choices"]] == texts
    size = sum(map(len, texts))
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (size, size)


async def test_control_tokens_in_prompts() -> None:
    """The text of a control token in a completion's prompt becomes that token."""
    node = saying("x")
    await ask(node, prompt="a<|end|>")
    assert unpack(node.requests[0].prompt).tolist() == [97, 256]


async def test_indices() -> None:
    """Choice i of prompt p has the index p * n + i, streamed or not."""
    answer = await ask(repeating(), prompt=["a", "b"], n=2)
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [
        (0, "A"),
        (1, "A"),
        (2, "B"),
        (3, "B"),
    ]
    texts = dict.fromkeys(range(4), "")
    reasons = dict.fromkeys(range(4), "")
    for event in await stream(repeating(), prompt=["a", "b"], n=2):
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] += choice["finish_reason"] or ""
    assert texts == {0: "A", 1: "A", 2: "B", 3: "B"}
    assert set(reasons.values()) == {"stop"}


async def test_concurrency_is_limited_by_capacity() -> None:
    """A hundred prompts are answered by a node with two slots, which never gets more than two at a time."""
    most = 0

    def script(request: Generate) -> Sequence[Step]:
        nonlocal most
        most = max(most, node.open)
        return [65, Pause(0.001), 66]

    node = MockProtocol(script, capacity=2)
    answer = await ask(node, prompt=["a"] * 100)
    assert [choice["text"] for choice in answer["choices"]] == ["AB"] * 100
    assert most == 2


async def test_stream() -> None:
    """All events of a stream have the same id, one has a finish reason, and usage is included if requested."""
    events = await stream(saying("Hi ö"), stream_options={"include_usage": True})
    assert len({(event["id"], event["created"], event["object"], event["model"]) for event in events}) == 1
    assert [event["choices"][0]["text"] for event in events[:-1]] == ["H", "i", " ", "ö", ""]
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * 4 + ["stop"]
    assert [event["usage"] for event in events[:-1]] == [None] * 5
    assert (events[-1]["choices"], events[-1]["usage"]["completion_tokens"]) == ([], 5)
    bare = await stream(saying("Hi"))
    assert [event.keys() & {"usage"} for event in bare] == [set()] * 3
    counted = await stream(saying("Hi"), stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert [event["usage"]["completion_tokens"] for event in counted] == [1, 2, 2, 2]


@pytest.mark.parametrize("streamed", [False, True])
async def test_stop(streamed: bool) -> None:
    """The text ends before a stop string, streamed or not."""
    events = await stream(saying("one two"), stop=" t") if streamed else [await ask(saying("one two"), stop=" t")]
    assert "".join(event["choices"][0]["text"] for event in events) == "one"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_echo() -> None:
    """With `echo` the text starts with the prompt, also one given as token ids, which does not count as completion
    tokens.
    """
    answer = await ask(saying("!"), prompt=["Hö", "b"], echo=True, n=2)
    assert [choice["text"] for choice in answer["choices"]] == ["Hö!", "Hö!", "b!", "b!"]
    assert answer["usage"]["completion_tokens"] == 4
    assert (await ask(saying("!"), prompt=[72, 105], echo=True))["choices"][0]["text"] == "Hi!"
    events = await stream(saying("!"), echo=True)
    assert [event["choices"][0]["text"] for event in events] == ["Once", "!", ""]


async def test_max_tokens_zero() -> None:
    """With `max_tokens` 0 no node is used, and with `echo` the answer is the prompt."""
    node = saying("x")
    answer = await ask(node, max_tokens=0, echo=True, prompt=["a", "b"])
    assert [(choice["text"], choice["finish_reason"]) for choice in answer["choices"]] == [
        ("a", "length"),
        ("b", "length"),
    ]
    assert answer["usage"]["total_tokens"] == 2
    events = await stream(node, max_tokens=0, echo=True)
    assert [event["choices"][0]["text"] for event in events] == ["Once", ""]
    assert node.requests == []


async def test_logprobs() -> None:
    """Logprobs have each token, its offset in the text, and the likeliest tokens including the chosen one."""
    node = likely([("a", -1.0), ("b", -2.0)])
    logprobs = (await ask(node, logprobs=1))["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["a", "b"],
        "token_logprobs": [-1.0, -2.0],
        "top_logprobs": [{"z": -0.01, "a": -1.0}, {"z": -0.01, "b": -2.0}],
        "text_offset": [0, 1],
    }
    assert node.requests[0].sampling.logprobs == 1
    none = (await ask(likely([("a", -1.0)]), logprobs=0))["choices"][0]["logprobs"]
    assert (none["token_logprobs"], none["top_logprobs"]) == ([-1.0], [{"a": -1.0}])


async def test_logprobs_of_half_characters() -> None:
    """A token that is part of a character is shown as bytes, with the offset of the character."""
    steps = [Delta(0, [token], [TokenLogprobs(-1.0)]) for token in "aö!".encode()]
    logprobs = (await ask(MockProtocol(steps, capabilities=ABLE), logprobs=0))["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "bytes:\\xc3", "bytes:\\xb6", "!"]
    assert logprobs["text_offset"] == [0, 1, 1, 2]


def joined(events: list[Any], name: str) -> list[Any]:
    parts = [event["choices"][0]["logprobs"] for event in events]
    return [one for part in parts if part is not None for one in part[name]]


@pytest.mark.parametrize("prompt", ["Hö", [72, 0xC3, 0xB6]])
async def test_logprobs_of_the_prompt(prompt: Any) -> None:
    """With `echo`, logprobs start with those of the prompt, whose first token has none, and offsets continue through
    it.
    """
    fields: Any = {"prompt": prompt, "echo": True, "logprobs": 1}
    choice = (await ask(likely([("a", -0.5)]), **fields))["choices"][0]
    assert choice["text"] == "Höa"
    assert choice["logprobs"] == {
        "tokens": ["H", "bytes:\\xc3", "bytes:\\xb6", "a"],
        "token_logprobs": [None, -1.0, -1.0, -0.5],
        "top_logprobs": [None, {"bytes:\\xc3": -1.0}, {"bytes:\\xb6": -1.0}, {"z": -0.01, "a": -0.5}],
        "text_offset": [0, 1, 1, 2],
    }
    events = await stream(likely([("a", -0.5)]), **fields)
    assert {name: joined(events, name) for name in choice["logprobs"]} == choice["logprobs"]
    alone = (await ask(likely(), max_tokens=0, **fields))["choices"][0]["logprobs"]
    assert alone["token_logprobs"] == [None, -1.0, -1.0]


async def test_failover_of_prompt_logprobs() -> None:
    """The logprobs of a prompt are requested from another node if one fails."""
    bad = MockProtocol([NodeLost("gone")], capabilities=ABLE, peer="bad")
    answer = await ask(bad, likely(peer="good"), echo=True, logprobs=0, max_tokens=0)
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [None, -1.0, -1.0, -1.0]


async def test_best_of() -> None:
    """`best_of` returns the choices with the highest mean logprob, and the usage counts the tokens of all of them."""
    node = likely([("a", -0.9)], [("b", -0.1), ("c", -0.3)], [("d", -0.5)], [])
    answer = await ask(node, best_of=4, n=2)
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "bc"), (1, "d")]
    assert [choice["logprobs"] for choice in answer["choices"]] == [None, None]
    assert answer["usage"]["completion_tokens"] == 4
    assert len(node.requests[0].starts) == 4
    shown = await ask(likely([("a", -0.9)], [("b", -0.1)]), best_of=2, logprobs=0)
    assert shown["choices"][0]["logprobs"]["tokens"] == ["b"]


async def test_token_ids() -> None:
    """With return_token_ids the response has the token ids of prompt and answer, streamed or not."""
    (choice,) = (await ask(saying("Hi"), return_token_ids=True))["choices"]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == ([*b"Once"], [*b"Hi"])
    events = await stream(saying("Hi"), return_token_ids=True)
    assert [event["choices"][0].get("prompt_token_ids") for event in events] == [[*b"Once"], None, None, None]
    assert [event["choices"][0].get("token_ids") for event in events] == [None, [72], [105], None]


async def test_sampling_reaches_the_node() -> None:
    """Sampling parameters and the output format are sent to the node."""
    can = Capabilities(top_k=True, grammars=("json_schema",))
    node = saying("x", capabilities=can)
    await ask(node, top_k=7, temperature=0.5, seed=3, max_tokens=9, response_format={"type": "json_object"})
    sampling = node.requests[0].sampling
    assert (sampling.top_k, sampling.temperature, sampling.seed, sampling.max_tokens) == (7, 0.5, 3, 9)
    assert sampling.grammar is not None
    assert sampling.grammar.kind == "json_schema"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": ["a", ""]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1, 999]}, "prompt[1]", "invalid_value"),
        ({"prompt": [[1], [2, 999]]}, "prompt[1][1]", "invalid_value"),
        ({"prompt": "x" * 4097}, "prompt", "context_length_exceeded"),
        ({"prompt": "x" * 4097, "max_tokens": 0}, "prompt", "context_length_exceeded"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_parameter_combination"),
        ({"suffix": "x"}, "suffix", "unsupported_parameter"),
        ({"echo": True, "logprobs": 0}, "logprobs", "invalid_value"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_invalid_requests(streamed: bool, fields: dict[str, Any], param: str, code: str) -> None:
    """Invalid completion requests are rejected before anything is streamed, and no node gets one."""
    node = saying("x")
    assert await refusal(node, **({"stream": streamed} | fields)) == (400, param, code)
    assert node.requests == []


@pytest.mark.parametrize(
    ("node_says", "fields", "param"),
    [
        ("grammar", {"response_format": {"type": "json_object"}}, "response_format"),
        ("grammar", {"structured_outputs": {"json_object": True}}, "structured_outputs"),
        ("grammar", {"guided_regex": "a+"}, "guided_regex"),
        ("top_logprobs", {"logprobs": 5}, "logprobs"),
        ("logprobs", {"best_of": 2}, "best_of"),
    ],
)
async def test_parameter_names_in_errors_of_nodes(node_says: str, fields: dict[str, Any], param: str) -> None:
    """A parameter that a node rejects is named in the error as the client called it."""
    message = f"Unsupported value for '{node_says}': this model does not support it."
    node = MockProtocol([InvalidRequest(message, param=node_says)])
    assert await refusal(node, **fields) == (400, param, "invalid_value")


async def test_an_error_before_the_first_byte() -> None:
    """An error before the first byte of a stream is an error response with its own status."""
    nodes = [MockProtocol([NodeLost("unreachable")], peer=name) for name in "ab"]
    assert await refusal(*nodes, stream=True, prompt=["a", "b"]) == (503, None, "node_failed")


async def test_an_error_in_a_stream() -> None:
    """An error of one prompt ends the stream of all prompts with an error event, without [DONE]."""

    def script(request: Generate) -> Sequence[Step]:
        return [65, Pause()] if prompt_of(request) == "a" else [Pause(0.05), EngineFailed("broken")]

    node = MockProtocol(script)
    async with asking(node) as client:
        body = (await client.post(PATH, json={**ASK, "prompt": ["a", "b"], "stream": True})).content
        first, last = events_of(body)
    assert first["choices"][0]["text"] == "A"
    assert last["error"]["type"] == "server_error"
    assert node.open == 0


async def test_failover() -> None:
    """If a node fails, another continues each prompt: text, logprobs and offsets equal those of an uninterrupted
    answer.
    """
    fields: Any = {"prompt": ["ab", "c"], "logprobs": 0, "echo": True}
    steps: list[Step] = [Delta(0, [letter], [TokenLogprobs(-1.0)]) for letter in b"Hello"]
    good = MockProtocol(steps, capabilities=ABLE, peer="good")
    expected = (await ask(good, **fields))["choices"]
    for cut in range(len(steps)):
        bad = MockProtocol(
            lambda request, cut=cut: [*steps[:cut], NodeLost("gone")],  # type: ignore[misc]
            capabilities=ABLE,
            peer="bad",
        )
        assert (await ask(bad, good, **fields))["choices"] == expected
        events = await stream(bad, good, **fields)
        for index, choice in enumerate(expected):
            mine = [event for event in events if event["choices"][0]["index"] == index]
            assert "".join(event["choices"][0]["text"] for event in mine) == choice["text"]
            assert {name: joined(mine, name) for name in choice["logprobs"]} == choice["logprobs"]


async def test_openai_client() -> None:
    """OpenAI's client reads text completions and their streams."""
    async with gateway(saying("Hi")) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        whole = await client.completions.create(model="mock", prompt="Once")
        assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("Hi", "stop")
        texts = [
            chunk.choices[0].text
            async for chunk in await client.completions.create(model="mock", prompt=[[1], [2]], stream=True)
        ]
        assert sorted("".join(texts)) == ["H", "H", "i", "i"]


async def test_headers_and_counts() -> None:
    """Headers name the nodes of all prompts, and metrics count the tokens of all of them."""
    async with asking(saying("Hi", peer="a"), saying("Hi", peer="b")) as client:
        response = await client.post(PATH, json={**ASK, "prompt": ["x", "y"]})
        text = (await client.get("/metrics")).text
    assert sorted(response.headers["x-subnet-nodes"].split(", ")) == ["a", "b"]
    assert response.headers["x-subnet-switches"] == "0"
    assert 'adapter_tokens_total{kind="completion",model="mock"} 4.0' in text
