"""Members of servers' answers that the gateway does not make itself, in the shapes that real servers send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI

from tests.fakes import ASK, events_of
from tests.provider import Cut, Provider, Script, chunk, error_response, event, events, json_response, raw, usage_of
from tests.test_providers import CHAT, TOOLS, ask, gateway_to, gateway_to_nodes

SAFE = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": False, "severity": "safe"}}
RESULTS = [{"title": "Bonn", "url": "https://example.com/bonn", "date": None, "last_updated": "2025-01-02"}]
SIGNED = {"google": {"thought_signature": "EjQKMgEMOdbH/+=="}}
CALL = {"id": "f1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}


def said(text: str = "", finish: str | None = None, *, delta: Any = None, choice: Any = None, **more: Any) -> Any:
    """Return a chunk with `text`; `more` are members of the chunk, and `choice` those of its choice."""
    return chunk(delta or {"content": text}, finish, **(choice or {})) | more


def last(prompt: int = 7, completion: int = 2, **more: Any) -> Any:
    """Return a chunk without choices and with usage; `more` are members of the chunk."""
    usage = usage_of(prompt, completion, **more.pop("usage", {}))
    return {**chunk(), "choices": [], **usage, **more}


@dataclass(frozen=True)
class Shape:
    """Chunks of a server, and what the client gets: members of the chunks, the response, its usage and its call.

    `streamed` are the members of the chunk that has each text, as far as they are checked.
    """

    chunks: list[Any]
    response: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    streamed: dict[str, dict[str, Any]] = field(default_factory=dict)


OPENROUTER_COST = {
    "cost": 0.0002637,
    "is_byok": False,
    "cost_details": {"upstream_inference_cost": None, "upstream_inference_completions_cost": 8.596e-05},
}
GROQ_TIMES = {"queue_time": 0.07535312, "prompt_time": 0.006, "completion_time": 0.022, "total_time": 0.028}
TIMINGS = {"cache_n": 0, "prompt_n": 7, "prompt_ms": 447.926, "predicted_n": 2, "predicted_per_second": 16.7}
SEARCH: dict[str, Any] = {"citations": ["https://example.com/bonn"], "search_results": RESULTS}
EARLIER: dict[str, Any] = {"citations": ["https://example.com"], "search_results": []}
SEARCH_COST = {"search_context_size": "low", "cost": {"input_tokens_cost": 0.0, "total_cost": 0.006}}

SHAPES = {
    # Every chunk names the provider; the last one has the price.
    "OpenRouter": Shape(
        [
            said(delta={"role": "assistant", "content": "One"}, provider="Google"),
            said(" two", provider="Google"),
            said("", "stop", choice={"native_finish_reason": "STOP"}, provider="Google"),
            last(
                usage={
                    **OPENROUTER_COST,
                    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 1, "image_tokens": 0},
                },
                provider="Google",
            ),
        ],
        {"provider": "Google"},
        {
            **OPENROUTER_COST,
            "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 1, "image_tokens": 0},
        },
        streamed={"": {"provider": "Google"}, "One": {"provider": "Google"}, " two": {"provider": "Google"}},
    ),
    "DeepSeek": Shape(
        [
            said("One two"),
            said("", "stop")
            | usage_of(
                7,
                2,
                prompt_tokens_details={"cached_tokens": 4},
                prompt_cache_hit_tokens=4,
                prompt_cache_miss_tokens=3,
            ),
        ],
        usage={
            "prompt_cache_hit_tokens": 4,
            "prompt_cache_miss_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    ),
    # Its id comes with the role; the usage is in x_groq, and since 2025 also where OpenAI has it.
    "Groq": Shape(
        [
            said(delta={"role": "assistant", "content": ""}, x_groq={"id": "req_1", "seed": 5}),
            said("One two"),
            said("", "stop", x_groq={"id": "req_1", **usage_of(7, 2, **GROQ_TIMES)}),
            last(usage=GROQ_TIMES, service_tier="on_demand", usage_breakdown=None),
        ],
        {"x_groq": {"id": "req_1", **usage_of(7, 2, **GROQ_TIMES)}, "service_tier": "on_demand"},
        GROQ_TIMES,
        streamed={"One two": {"x_groq": {"id": "req_1", "seed": 5}}},
    ),
    "xAI": Shape(
        [
            said("One two"),
            said("", "stop"),
            last(
                usage={
                    "num_sources_used": 2,
                    "cost_in_usd_ticks": 569184000,
                    "prompt_tokens_details": {"text_tokens": 7, "audio_tokens": 0, "image_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 1, "accepted_prediction_tokens": 0},
                },
                citations=["https://example.com/a"],
            ),
        ],
        {"citations": ["https://example.com/a"]},
        {
            "num_sources_used": 2,
            "cost_in_usd_ticks": 569184000,
            "prompt_tokens_details": {"text_tokens": 7, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 1, "accepted_prediction_tokens": 0},
        },
    ),
    # Every chunk has the sources found so far, the usage so far, and the message so far beside the delta.
    "Perplexity": Shape(
        [
            said("One", choice={"message": {"role": "assistant", "content": "One"}}, **EARLIER) | usage_of(7, 1),
            said(" two", choice={"message": {"role": "assistant", "content": "One two"}}, **SEARCH) | usage_of(7, 2),
            said("", "stop", **SEARCH) | usage_of(7, 2, **SEARCH_COST),
        ],
        SEARCH,
        SEARCH_COST,
        streamed={"One": {"citations": EARLIER["citations"]}, " two": SEARCH},
    ),
    # Only the padding is dropped.
    "OpenAI": Shape(
        [
            said("One two", service_tier="default", obfuscation="aZ3"),
            said("", "stop", service_tier="default", obfuscation="q"),
            last(
                usage={
                    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                    "completion_tokens_details": {"accepted_prediction_tokens": 2, "rejected_prediction_tokens": 0},
                },
                service_tier="default",
                obfuscation="",
            ),
        ],
        {"service_tier": "default"},
        {
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "accepted_prediction_tokens": 2,
                "rejected_prediction_tokens": 0,
            },
        },
        streamed={"One two": {"service_tier": "default"}},
    ),
    # The first chunk has no choices; with asynchronous filters, a late one has no delta.
    "Azure": Shape(
        [
            {
                "id": "",
                "object": "",
                "created": 0,
                "model": "",
                "choices": [],
                "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
            },
            said("One two", choice={"content_filter_results": SAFE}),
            said("", "stop"),
            {"id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {"end_offset": 7}}]},
            last(),
        ],
        {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]},
        streamed={"": {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]}},
    ),
    # A call comes as a whole, without an index.
    "Gemini": Shape(
        [
            said(delta={"role": "assistant", "tool_calls": [{**CALL, "extra_content": SIGNED}]}),
            said("", "stop"),
            last(),
        ],
        call={"extra_content": SIGNED},
    ),
    # Members of a call and of its function, of a gateway that names them otherwise.
    "LiteLLM": Shape(
        [
            said(
                delta={
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "f1",
                            "type": "function",
                            "provider_specific_fields": {"thought_signature": "abc"},
                            "function": {"name": "weather", "arguments": "", "provider_specific_fields": {"a": 1}},
                        }
                    ]
                }
            ),
            said(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Bonn"}'}}]}),
            said("", "tool_calls"),
            last(),
        ],
        call={
            "provider_specific_fields": {"thought_signature": "abc"},
            "function": {
                "name": "weather",
                "arguments": '{"city": "Bonn"}',
                "provider_specific_fields": {"a": 1},
            },
        },
    ),
    # Most of its members are null.
    "vLLM": Shape(
        [
            said("One two", choice={"stop_reason": None, "token_ids": None}, prompt_token_ids=None),
            said("", "stop", choice={"stop_reason": 128009}),
            last(
                usage={"prompt_tokens_details": None},
                prompt_logprobs=None,
                kv_transfer_params={"remote_block_ids": [1, 2], "remote_host": "10.0.0.1"},
                metrics=None,
            ),
        ],
        {"kv_transfer_params": {"remote_block_ids": [1, 2], "remote_host": "10.0.0.1"}},
    ),
    "llama-server": Shape(
        [
            said("One two"),
            said("", "stop", system_fingerprint="b6290-a6a58d64"),
            last(timings=TIMINGS, system_fingerprint="b6290-a6a58d64"),
        ],
        {"timings": TIMINGS},
    ),
    # The price is in the last chunk but one only.
    "DeepInfra": Shape(
        [said("One two"), said("", "stop") | usage_of(7, 2, estimated_cost=1.2e-06), last()],
        usage={"estimated_cost": 1.2e-06},
    ),
    "Ollama": Shape(
        [said("One two"), said("", "stop", prompt_eval_count=7, eval_count=2, total_duration=5_191_566_416)],
        {"prompt_eval_count": 7, "eval_count": 2, "total_duration": 5_191_566_416},
    ),
}
OWN = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
COUNTED = {"prompt_tokens", "completion_tokens", "total_tokens"}
DEFAULT_DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def other(fields: dict[str, Any], own: set[str] = OWN) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in own}


def usages(shape: Shape) -> dict[str, Any]:
    return DEFAULT_DETAILS | shape.usage


def calls(shape: Shape) -> list[Any]:
    return [CALL | shape.call] if shape.call else []


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
async def test_what_servers_send_reaches_the_client(shape: Shape) -> None:
    """Members of the response, its usage and its tool calls reach the client unchanged; what the gateway makes itself
    stays its own.
    """
    async with gateway_to(Provider(events(*shape.chunks))) as http:
        whole = (await http.post(CHAT, json=ASK)).json()
    assert other(whole) == shape.response
    assert other(whole["usage"], COUNTED) == usages(shape)
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["total_tokens"]) == (7, 9)
    assert whole["choices"][0]["message"].get("tool_calls", []) == calls(shape)
    assert (whole["model"], whole["object"]) == ("mock", "chat.completion")
    assert whole["system_fingerprint"] != "b6290-a6a58d64"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
async def test_what_servers_stream_reaches_the_client(shape: Shape) -> None:
    """Members of a chunk are in the chunk with the same text; those of a call are in its first part."""
    async with gateway_to(Provider(events(*shape.chunks))) as http:
        *chunks, done = events_of((await http.post(CHAT, json=ASK | STREAM)).content)
    assert done == "[DONE]"
    assert msgspec.json.decode(msgspec.json.encode(_merged(chunks))) == shape.response
    assert other(chunks[-1]["usage"], COUNTED) == usages(shape)
    for one in chunks[:-1]:
        text = one["choices"][0]["delta"].get("content")
        expected = shape.streamed.get(text, {}) if text is not None else {}
        assert {name: one.get(name) for name in expected} == expected
    parts = [call for one in chunks[:-1] for call in one["choices"][0]["delta"].get("tool_calls", ())]
    for part in parts[:1]:
        assert other(part, {"index", "function"}) == other(calls(shape)[0], {"function"})
        function = calls(shape)[0]["function"]
        assert other(part["function"], {"arguments"}) == other(function, {"arguments"})
    assert all(other(part, {"index", "function"}) == {} for part in parts[1:])


def _merged(chunks: list[Any]) -> dict[str, Any]:
    return {name: value for one in chunks for name, value in other(one).items()}


@asynccontextmanager
async def client_of(shape: Shape) -> AsyncIterator[AsyncOpenAI]:
    async with gateway_to(Provider(events(*shape.chunks))) as http:
        async with AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="any", max_retries=0) as client:
            yield client


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
async def test_the_openai_client_shows_them(shape: Shape) -> None:
    """The openai package shows these members, streamed and not, and its accumulator puts the calls together."""
    async with client_of(shape) as client:
        whole = await client.chat.completions.create(**ASK)
        async with client.chat.completions.stream(**ASK, stream_options={"include_usage": True}) as stream:
            chunks = [one.chunk async for one in stream if one.type == "chunk"]
            final = await stream.get_final_completion()
    extra = {name: value for one in chunks for name, value in {**(one.model_extra or {})}.items()}
    named = {"service_tier"}
    assert whole.model_extra == extra == other(shape.response, named)
    assert whole.usage is not None
    for usage in (whole.usage, chunks[-1].usage, final.usage):
        assert usage is not None
        assert usage.model_extra == other(shape.usage, set(DEFAULT_DETAILS))
        assert other(usage.model_dump(exclude_unset=True), COUNTED) == usages(shape)
    for completion in (whole, final):
        for call in completion.choices[0].message.tool_calls or ():
            assert call.model_extra is not None
            assert other(call.model_extra, {"index"}) == other(shape.call, {"function"})
            function: Any = call.to_dict()["function"]
            assert other(function, {"parsed_arguments"}) == (CALL | shape.call)["function"]


async def test_a_server_that_does_not_stream() -> None:
    """The members of a response that is one JSON object are passed on as those of a stream are."""
    message = {"role": "assistant", "content": None, "tool_calls": [{**CALL, "extra_content": SIGNED}]}
    body = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    body |= {"citations": ["https://a"], **usage_of(7, 2, cost=0.5)}
    async with gateway_to(Provider(json_response(body))) as http:
        whole = (await http.post(CHAT, json=ASK)).json()
        chunks = events_of((await http.post(CHAT, json=ASK | STREAM)).content)[:-1]
    assert (whole["citations"], whole["usage"]["cost"]) == (["https://a"], 0.5)
    assert whole["choices"][0]["message"]["tool_calls"] == [{**CALL, "extra_content": SIGNED}]
    assert (_merged(chunks), chunks[-1]["usage"]["cost"]) == ({"citations": ["https://a"]}, 0.5)


async def test_usage_is_sent_only_if_requested() -> None:
    """Without `include_usage` no usage is sent, whatever it has; the members of its chunk come with the last one."""
    async with gateway_to(Provider(events(*SHAPES["llama-server"].chunks))) as http:
        *chunks, _ = events_of((await http.post(CHAT, json=ASK | {"stream": True})).content)
    assert [one.get("timings") for one in chunks] == [None, None, TIMINGS]
    assert not any("usage" in one for one in chunks)


async def test_parts_of_the_usage_are_kept() -> None:
    """Members that a later report lacks are kept, and those that it has replace the earlier ones."""
    first = usage_of(7, 1, cost=0.5, prompt_tokens_details={"audio_tokens": 1, "image_tokens": 2})
    second = usage_of(7, 2, prompt_tokens_details={"audio_tokens": 3})
    async with gateway_to(Provider(events(said("One") | first, said(" two", "stop") | second))) as http:
        usage = (await http.post(CHAT, json=ASK)).json()["usage"]
    assert (usage["completion_tokens"], usage["cost"]) == (2, 0.5)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 3, "image_tokens": 2}


# Calls.


SIGNED_CALL = {"index": 0, **CALL, "extra_content": SIGNED}


async def test_members_after_the_start_of_a_call() -> None:
    """A member that comes after the start of its call is passed on once, even if the server repeats it."""
    start = {"index": 0, "id": "f1", "function": {"name": "weather", "arguments": '{"city": '}}
    late = {"index": 0, "extra_content": SIGNED, "function": {}}
    rest = {"index": 0, "function": {"arguments": '"Bonn"}'}}
    parts = (start, rest, late, SIGNED_CALL)
    script = events(*(said(delta={"tool_calls": [part]}) for part in parts), said("", "stop"))
    async with gateway_to(Provider(script)) as http:
        whole = (await http.post(CHAT, json=ASK)).json()["choices"][0]["message"]["tool_calls"]
        chunks = events_of((await http.post(CHAT, json=ASK | {"stream": True})).content)[:-1]
    assert whole == [{**CALL, "extra_content": SIGNED}]
    sent = [call for one in chunks for call in one["choices"][0]["delta"].get("tool_calls", ())]
    assert [part["extra_content"] for part in sent if "extra_content" in part] == [SIGNED]
    assert "".join(part["function"]["arguments"] for part in sent) == '{"city": "Bonn"}'


async def test_members_before_the_name_of_a_call() -> None:
    """A member that comes before the name of its call is passed on with the call's first part."""
    unnamed = {"index": 0, "id": "f1", "extra_content": SIGNED, "function": {"arguments": ""}}
    named = {"index": 0, "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
    script = events(*(said(delta={"tool_calls": [part]}) for part in (unnamed, named)), said("", "stop"))
    async with gateway_to(Provider(script)) as http:
        chunks = events_of((await http.post(CHAT, json=ASK | {"stream": True})).content)[:-1]
    (first, *_) = (call for one in chunks for call in one["choices"][0]["delta"].get("tool_calls", ()))
    assert (first["id"], first["function"]["name"], first["extra_content"]) == ("f1", "weather", SIGNED)


async def test_members_of_the_older_function_call() -> None:
    """In the older form, which has no call around its function, the members of the function are passed on."""
    function = {"name": "weather", "arguments": "{}", "note": {"a": 1}}
    body = ASK | {"functions": [TOOLS[0]["function"]]}
    async with gateway_to(Provider(events(said(delta={"function_call": function}), said("", "stop")))) as http:
        whole = (await http.post(CHAT, json=body)).json()["choices"][0]["message"]
        chunks = events_of((await http.post(CHAT, json=body | {"stream": True})).content)[:-1]
    assert whole["function_call"] == function
    parts = [one["choices"][0]["delta"].get("function_call", {}) for one in chunks]
    assert [part["note"] for part in parts if "note" in part] == [{"a": 1}]


async def test_members_of_a_chunk_that_is_left_out() -> None:
    """Members of a chunk of which nothing is sent, a second call in the older form, come with the next chunk."""
    calls = [{"index": index, **CALL, "id": f"f{index}"} for index in (0, 1)]
    first, second = (said(delta={"tool_calls": [call]}) for call in calls)
    script = events(first, {**second, "a": 1, "b": 1}, said("", "stop", b=2))
    body = ASK | {"stream": True, "functions": [TOOLS[0]["function"]]}
    async with gateway_to(Provider(script)) as http:
        *chunks, _ = events_of((await http.post(CHAT, json=body)).content)
    assert [other(one) for one in chunks if other(one)] == [{"a": 1, "b": 2}]


def cut_after(*chunks: Any) -> Script:
    return Script([*(event(one) for one in chunks), Cut()])


PLACES = {"another deployment": ["mock", "mock"], "a fallback": ["mock", "other"]}
FALLBACKS = {"another deployment": {}, "a fallback": {"mock": ("other",)}}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("repeated", [True, False])
async def test_a_call_with_members_is_resumed_if_they_are_repeated(where: str, repeated: bool) -> None:
    """An answer with a signed call is spliced only if the other one has the same signature; otherwise it is begun anew
    before its first byte, or ends in an error event.
    """
    again = SIGNED_CALL if repeated else {**SIGNED_CALL, "extra_content": {"google": {"thought_signature": "other"}}}
    whole = events(said(delta={"tool_calls": [again]}), said("Done", "tool_calls"))
    more: dict[str, Any] = {"models": PLACES[where], "fallbacks": FALLBACKS[where]}
    for stream in (True, False):
        bad = Provider(cut_after(said(delta={"tool_calls": [SIGNED_CALL]})), error_response(500))
        async with gateway_to(bad, Provider(whole), **more) as http:
            response = await http.post(CHAT, json=ASK | {"stream": stream, "seed": 1})
        if stream:
            assert ("Done" in response.text, '"error"' in response.text) == (repeated, not repeated)
            assert response.text.count("EjQKMgEMOdbH") == 1
        else:
            assert response.json()["choices"][0]["message"]["tool_calls"] == [other(again, {"index"})]


@pytest.mark.parametrize("where", PLACES)
async def test_late_members_of_a_call_are_compared(where: str) -> None:
    """A signature that differs from the one delivered is never added to it, even if it comes after the call."""
    other_late = {"index": 0, "extra_content": {"google": {"thought_signature": "other"}}, "function": {}}
    late = {"index": 0, "extra_content": SIGNED, "function": {}}
    first, again = (
        [said(delta={"tool_calls": [{"index": 0, **CALL}]}), said(delta={"tool_calls": [part]})]
        for part in (late, other_late)
    )
    bad, good = Provider(cut_after(*first), error_response(500)), Provider(events(*again, said("Done", "tool_calls")))
    async with gateway_to(bad, good, models=PLACES[where], fallbacks=FALLBACKS[where]) as http:
        response = await http.post(CHAT, json=ASK | {"stream": True, "seed": 1})
    assert "EjQKMgEMOdbH" in response.text
    assert '"other"' not in response.text
    assert '"error"' in response.text


async def test_a_replay_must_repeat_the_members_of_a_call() -> None:
    """A replay without the signature that was delivered differs, even if all else is the same."""
    good = Provider(events(said(delta={"tool_calls": [{"index": 0, **CALL}]}), said("Done", "tool_calls")))
    bad = Provider(cut_after(said(delta={"tool_calls": [SIGNED_CALL]})), error_response(500))
    async with gateway_to(bad, good) as http:
        response = await http.post(CHAT, json=ASK | {"stream": True, "seed": 1})
    assert ("Done" in response.text, '"error"' in response.text) == (False, True)


# Failover.


@pytest.mark.parametrize("where", PLACES)
async def test_members_of_chunks_do_not_stop_a_failover(where: str) -> None:
    """An answer with members of chunks is resumed. Those of the part that is skipped come with the next new chunk."""
    bad = Provider(cut_after(said("One", provider="A")), error_response(500))
    first = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    good = Provider(events(first, said("One", provider="B"), said(" two", provider="B"), said("", "stop"), last()))
    async with gateway_to(bad, good, models=PLACES[where], fallbacks=FALLBACKS[where]) as http:
        *chunks, done = events_of((await http.post(CHAT, json=ASK | {"stream": True, "seed": 1})).content)
    texts = {one["choices"][0]["delta"].get("content"): other(one) for one in chunks}
    assert texts[" two"] == {"provider": "B", "prompt_filter_results": [{"prompt_index": 0}]}
    assert texts[""] == {"provider": "A"}
    assert done == "[DONE]"


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("same", [True, False])
async def test_citations_must_be_the_same(where: str, same: bool) -> None:
    """The text refers to its citations: an answer is not resumed by one that has others."""
    cited = ["https://a.example"]
    bad = Provider(cut_after(said("One [1]", citations=cited)), error_response(500))
    others = cited if same else ["https://b.example"]
    good = Provider(events(said("One [1]", citations=others), said(" two", citations=others), said("", "stop"), last()))
    async with gateway_to(bad, good, models=PLACES[where], fallbacks=FALLBACKS[where]) as http:
        *chunks, done = events_of((await http.post(CHAT, json=ASK | {"stream": True, "seed": 1})).content)
    if not same:
        assert (_merged(chunks), "error" in done) == ({"citations": cited}, True)
    else:
        assert (_merged(chunks), done) == ({"citations": cited}, "[DONE]")


async def test_nothing_is_sent_before_the_answer_begins() -> None:
    """Members of a chunk without content are not sent before content, so that the answer can still be restarted."""
    early = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    role = said(delta={"role": "assistant", "content": ""}, provider="A")
    bad = Provider(cut_after(early, role), error_response(500))
    async with gateway_to(bad, Provider(events(said("One", provider="B"), said("", "stop")))) as http:
        *chunks, _ = events_of((await http.post(CHAT, json=ASK | {"stream": True})).content)
    assert _merged(chunks) == {"provider": "B"}


PRICED = last(usage={"cost": 0.5, "prompt_tokens_details": {"audio_tokens": 0}})


@pytest.mark.parametrize("where", PLACES)
async def test_the_usage_of_a_resumed_answer_has_no_other_members(where: str) -> None:
    """The price of one request is not that of an answer that two requests made."""
    good = Provider(events(said("One"), said(" two"), said("", "stop"), PRICED))
    bad = Provider(cut_after(said("One")), error_response(500))
    async with gateway_to(bad, good, models=PLACES[where], fallbacks=FALLBACKS[where]) as http:
        *chunks, _ = events_of((await http.post(CHAT, json=ASK | STREAM | {"seed": 1})).content)
    assert chunks[-1]["usage"]["completion_tokens"] == 2
    assert other(chunks[-1]["usage"], COUNTED) == DEFAULT_DETAILS


@pytest.mark.parametrize("where", PLACES)
async def test_the_usage_of_a_restarted_answer(where: str) -> None:
    """If the other request delivered nothing, the price is that of the answer."""
    good = Provider(events(said("One two"), said("", "stop"), PRICED))
    async with gateway_to(
        Provider(error_response(500)), good, models=PLACES[where], fallbacks=FALLBACKS[where]
    ) as http:
        *chunks, _ = events_of((await http.post(CHAT, json=ASK | STREAM)).content)
    assert chunks[-1]["usage"]["cost"] == 0.5


@pytest.mark.parametrize(
    ("spec", "cost"),
    [({"kind": "openai"}, 0.5), ({"kind": "llama-server"}, None), ({"kind": "openai", "concurrency": 1}, None)],
)
async def test_the_usage_of_several_choices(spec: dict[str, Any], cost: float | None) -> None:
    """Several choices have a price if one request made them all, and none if there was one for each."""
    both = events(said("A"), chunk({"content": "B"}, index=1), said("", "stop"), chunk({}, "stop", index=1), PRICED)
    one = events(said("A"), said("", "stop"), PRICED)
    async with gateway_to_nodes((Provider(one if cost is None else both), spec)) as http:
        whole = (await http.post(CHAT, json=ASK | {"n": 2})).json()
    assert len(whole["choices"]) == 2
    assert whole["usage"].get("cost") == cost


# Hostile servers.


ODD = [
    ('"x": NaN, "y": [1, Infinity, -Infinity]', {"y": [1, None, None]}),
    ('"x": 1e999, "y": -1e999', {"x": None, "y": None}),
    ('"x": 111111111111111111111111111111, "y": -0.0', {"x": 10**30 // 9, "y": 0.0}),
    (r'"x": "\ud83d", "\ude00": {"a\ud83d": ["\ude00b"]}', {"x": "\ufffd", "\ufffd": {"a\ufffd": ["\ufffdb"]}}),
    (r'"x": "\ud83d\ude00\n\n\u0000"', {"x": "😀\n\n\x00"}),
    ('"x": null, "y": [], "z": {}, "id": {"a": 1}, "created": "x", "model": 5', {}),
    ('"x": 0, "y": false, "z": [null]', {"x": 0, "y": False, "z": [None]}),
    ('"x": 1, "x": 2', {"x": 2}),
]


@pytest.mark.parametrize(("members", "expected"), ODD)
async def test_odd_members_are_valid_json(members: str, expected: dict[str, Any]) -> None:
    """Numbers that JSON does not have, halves of surrogate pairs and other names never make invalid JSON."""
    inner = members.replace('"id": {"a": 1}, ', "")
    call = f'{{"index":0,"id":"f1","function":{{"name":"weather","arguments":"{{}}",{inner}}},{inner}}}'
    usage = f'{{"prompt_tokens":7,"completion_tokens":2,{inner},"prompt_tokens_details":{{{inner}}}}}'
    choice = f'{{"index":0,"delta":{{"content":"One two","tool_calls":[{call}]}},"finish_reason":"stop"}}'
    data = f'data: {{{members},"choices":[{choice}],"usage":{usage}}}\n\n'
    async with gateway_to(Provider(raw(data, "data: [DONE]\n\n"))) as http:
        whole = msgspec.json.decode((await http.post(CHAT, json=ASK)).content)
        *chunks, done = events_of((await http.post(CHAT, json=ASK | STREAM)).content)
    assert (other(whole), _merged(chunks), done) == (expected, expected, "[DONE]")
    assert whole["model"] == "mock"
    (one,) = whole["choices"][0]["message"]["tool_calls"]
    objects = [whole["usage"], chunks[-1]["usage"], whole["usage"]["prompt_tokens_details"]]
    if "ud83d" not in members:
        # The other half may be in the next part of a call.
        objects += [one, one["function"]]
    for fields in objects:
        assert expected.items() <= fields.items()


def many_chunks(template: str) -> str:
    """Return the data of 300 chunks, each with its number."""
    return "\n\ndata: ".join(template % number for number in range(300))


DEEP = "[" * 70 + "1" + "]" * 70
DEEPER = "[" * 900 + r'"\ud83d"' + "]" * 900
TOO_MUCH = {
    "deep in the chunk": f'{{"x":{DEEP},"choices":[]}}',
    "deep in the usage": f'{{"choices":[],"usage":{{"prompt_tokens":1,"completion_tokens":1,"x":{DEEP}}}}}',
    "deep in a call": f'{{"choices":[{{"delta":{{"tool_calls":[{{"x":{DEEP},"function":{{"name":"f"}}}}]}}}}]}}',
    "deep in a message": f'{{"choices":[{{"delta":{{"x":{DEEP}}}}}]}}',
    "deep in a choice": f'{{"choices":[{{"x":{DEEP},"delta":{{}}}}]}}',
    "deeper than the stack": f'{{"x":{DEEPER},"choices":[]}}',
    "deeper than the stack in a message": f'{{"choices":[{{"delta":{{"x":{DEEPER}}}}}]}}',
    "many names": msgspec.json.encode({f"x{number}": 1 for number in range(300)}).decode(),
    "many names in chunks": many_chunks('{"x%d":1,"choices":[]}'),
    "many names in the usage": many_chunks('{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"x%d":1}}'),
    "many names in details of the usage": many_chunks(
        '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"prompt_tokens_details":{"x%d":1}}}'
    ),
    "many names in an object of the usage": many_chunks(
        '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"cost":{"x%d":1}}}'
    ),
    "many names in a choice": many_chunks('{"choices":[{"x%d":1,"delta":{}}]}'),
    "many names in a call": many_chunks('{"choices":[{"delta":{"tool_calls":[{"x%d":1,"function":{}}]}}]}'),
    "many names in a function": many_chunks('{"choices":[{"delta":{"tool_calls":[{"function":{"x%d":1}}]}}]}'),
}


@pytest.mark.parametrize("data", TOO_MUCH.values(), ids=TOO_MUCH.keys())
async def test_too_much_is_an_error_of_the_server(data: str) -> None:
    """Members that are nested too deeply or too many are a failure of the node, and another one answers."""
    wrong = event(said("Wrong", "stop"))
    bad = Provider(raw(f"data: {data}\n\n", wrong, "data: [DONE]\n\n"))
    async with gateway_to(bad, Provider(events(said("One two"), said("", "stop")))) as http:
        for stream in (True, False):
            assert await ask(http, stream) == (200, "One two", None)
    assert bad.chat_requests
