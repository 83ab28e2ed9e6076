"""Differences between servers: parameters, model lists, and continuing a prefix."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.chat import ChatRequest, Endpoint
from subnet.errors import InvalidRequest, NodeError, NodeLost, RateLimited, SubnetError, Unauthorized, WireError
from subnet.http.node_spec import NodeSpec
from subnet.node_info import ModelCard
from subnet.protocols.openai import OpenAIProtocol
from subnet.protocols.openai.chat_body import build_body
from subnet.protocols.openai.openai_choice import PrefixFilter
from subnet.protocols.openai.quirks import Quirks, quirks_for
from tests.chat_node import HELLO, Recorder, chat, node
from tests.provider import (
    Pause,
    Provider,
    Script,
    Step,
    answer,
    as_text,
    chunk,
    connection_reset,
    error_response,
    event,
    events,
    json_response,
    raw,
)

OURS = ("messages", "model", "stream", "stream_options")


def extra_fields(kind: str | None, body: dict[str, Any], *, url: str = "http://h", prefix: str = "") -> dict[str, Any]:
    """Return the fields of a request body that not every server gets."""
    return sent(body, quirks_for(NodeSpec(url=url, kind=kind)), prefix=prefix)  # type: ignore[arg-type]


def sent(body: dict[str, Any], quirks: Quirks, *, prefix: str = "") -> dict[str, Any]:
    fields = build_body(ChatRequest(model="model", body={"messages": HELLO, **body}, prefix=prefix), quirks, "theirs")
    return {name: value for name, value in fields.items() if name not in OURS}


# Parameters.


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (
            "openai",
            {"max_completion_tokens": 5, "logit_bias": {"1": 2}},
            {"max_completion_tokens": 5, "logit_bias": {"1": 2}},
        ),
        (None, {"max_completion_tokens": 5, "store": True}, {"max_completion_tokens": 5, "store": True}),
        ("vllm", {"top_k": 3, "guided_regex": "a"}, {"top_k": 3, "structured_outputs": {"regex": "a"}}),
        ("vllm", {"typical_p": 1, "verbosity": "medium", "functions": []}, {}),
        ("sglang", {"structured_outputs": {"regex": "a+"}, "echo": False}, {"regex": "a+"}),
        ("sglang", {"guided_grammar": "root ::= x"}, {"ebnf": "root ::= x"}),
        ("sglang", {"guided_choice": ["a.b", "c"]}, {"regex": "(a\\.b|c)"}),
        ("sglang", {"structured_outputs": {"json_object": True}}, {"response_format": {"type": "json_object"}}),
        (
            "sglang",
            {"structured_outputs": {"json": '{"type": "null"}', "regex": None}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "null"}},
                }
            },
        ),
        ("llama-server", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("llama-server", {"grammar": "root ::= x", "user": "me"}, {"grammar": "root ::= x", "user": "me"}),
        ("ollama", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("ollama", {"max_completion_tokens": 5, "max_tokens": 6}, {"max_tokens": 6}),
        (
            "ollama",
            {"seed": 1, "stop": "x", "logprobs": True, "top_logprobs": 2},
            {"seed": 1, "stop": "x", "logprobs": True, "top_logprobs": 2},
        ),
        ("ollama", {"user": "me", "metadata": {"a": "b"}, "logit_bias": {}, "tool_choice": "auto", "min_p": 0}, {}),
        ("ollama", {"tools": [{"type": "function"}], "tool_choice": "none"}, {}),
        ("tgi", {"max_completion_tokens": 5, "stop": "x"}, {"max_tokens": 5, "stop": ["x"]}),
        # TGI rejects a top_p of 1, and treats a presence penalty of 0 as a repetition penalty of 2.
        ("tgi", {"top_p": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "stop": ["x"]}, {"stop": ["x"]}),
        ("tgi", {"tool_choice": "required", "tools": [{}]}, {"tool_choice": "required", "tools": [{}]}),
        (
            "tgi",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "null"}, "strict": True},
                }
            },
            {"response_format": {"type": "json_schema", "value": {"name": "n", "schema": {"type": "null"}}}},
        ),
        (
            "tgi",
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_object", "value": {"type": "object"}}},
        ),
        (
            "tgi",
            {"response_format": {"type": "regex", "value": "a"}},
            {"response_format": {"type": "regex", "value": "a"}},
        ),
        ("lmstudio", {"max_completion_tokens": 5, "repetition_penalty": 1.5}, {"max_tokens": 5, "repeat_penalty": 1.5}),
        ("lmstudio", {"logprobs": False}, {}),
        ("transformers", {"max_completion_tokens": 5, "user": "me", "echo": False}, {"max_tokens": 5}),
        (
            "transformers",
            {"temperature": 0, "stop": [], "logit_bias": {"28": 1}},
            {"temperature": 0, "logit_bias": {"28": 1.0}},
        ),
        (
            "transformers",
            {"temperature": 0.5, "max_tokens": 7},
            {"temperature": 0.5, "max_tokens": 7, "generation_config": '{"do_sample":true}'},
        ),
        (
            "transformers",
            {"temperature": 0, "repetition_penalty": 1.5, "min_tokens": 3, "max_completion_tokens": 7},
            {"temperature": 0, "max_tokens": 7, "generation_config": '{"repetition_penalty":1.5,"min_new_tokens":3}'},
        ),
        (
            "transformers",
            {"top_k": -1, "min_p": 0.1},
            {"generation_config": '{"top_k":0,"min_p":0.1,"do_sample":true,"max_new_tokens":1024}'},
        ),
        ("transformers", {"temperature": 1, "generation_config": "{}"}, {"temperature": 1, "generation_config": "{}"}),
    ],
)
def test_parameters_are_adapted(kind: str | None, body: dict[str, Any], expected: dict[str, Any]) -> None:
    """Parameters are renamed for the server, and left out if they have no effect."""
    assert extra_fields(kind, body) == expected


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("ollama", "logit_bias", {"1": 2}),
        ("ollama", "tool_choice", "required"),
        ("ollama", "tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("ollama", "parallel_tool_calls", False),
        ("ollama", "top_k", 5),
        ("ollama", "structured_outputs", {"regex": "a"}),
        ("tgi", "presence_penalty", 0.5),
        ("tgi", "logit_bias", {"1": 2}),
        ("lmstudio", "logprobs", True),
        ("llama-server", "guided_regex", "a+"),
        ("transformers", "response_format", {"type": "json_object"}),
        ("transformers", "tool_choice", "required"),
        ("transformers", "logprobs", True),
        ("transformers", "frequency_penalty", 0.5),
        ("transformers", "presence_penalty", 0.5),
        ("transformers", "max_completion_tokens", 0),
        ("transformers", "temperature", "hot"),
        ("transformers", "stop", ["a", ""]),
        ("transformers", "logit_bias", {"a": 1}),
        ("transformers", "logit_bias", {"1": "a"}),
        ("transformers", "seed", 2**63),
        ("transformers", "generation_config", "{"),
        ("transformers", "generation_config", ""),
        ("transformers", "generation_config", "[]"),
        ("transformers", "generation_config", {}),
        ("vllm", "typical_p", 0.5),
        ("vllm", "verbosity", "low"),
        ("vllm", "modalities", ["text", "audio"]),
        ("sglang", "typical_p", 0.5),
        ("sglang", "include_stop_str_in_output", True),
        ("sglang", "echo", True),
        ("sglang", "chat_template", "{{ messages }}"),
        ("sglang", "structured_outputs", {"regex": "a", "json": {}}),
        ("sglang", "structured_outputs", {"structural_tag": "{}"}),
        ("sglang", "structured_outputs", {"choice": [1]}),
        ("sglang", "structured_outputs", {"json": "{"}),
        ("sglang", "structured_outputs", "a"),
    ],
)
async def test_ignored_parameters_are_rejected(kind: str, name: str, value: Any) -> None:
    """A parameter that the server would silently ignore is rejected by name, before any request."""
    async with Provider() as provider, node(provider.url, kind=kind) as protocol:
        with pytest.raises(InvalidRequest) as caught:
            await chat(protocol, **{name: value})
        assert (caught.value.param, provider.chat_requests) == (name, [])


@pytest.mark.parametrize(
    ("pieces", "stop", "text"),
    [
        (["One", " two", " three"], " two", "One"),
        (["One", " t", "wo!"], ["two"], "One "),
        (["One", " t"], ["two"], "One t"),
        (["One", " two"], None, "One two"),
    ],
)
@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize(
    ("endpoint", "asked"), [("chat/completions", {"messages": HELLO}), ("completions", {"prompt": "go"})]
)
async def test_stop_strings_in_answers(
    pieces: list[str], stop: Any, text: str, finish: str, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """The stop string that transformers serve sends as a part of the answer does not reach the client."""
    chunks = [chunk({"role": "assistant"}), *(chunk({"content": piece}) for piece in pieces), chunk(finish=finish)]
    script = events(*chunks)
    request = ChatRequest(model="model", endpoint=endpoint, body={**asked, "stop": stop})
    result = Recorder()
    async with Provider(script, completions=[as_text(script)]) as provider:
        async with node(provider.url, kind="transformers") as protocol:
            await protocol.rpc_chat(request, result.emit)
    assert result.text() == text
    stopped = text != "".join(pieces)
    assert result.finishes() == ["stop" if stopped else finish]


async def test_a_role_does_not_end_the_wait_for_a_slot() -> None:
    """While another request has the only slot, one that has got no more than its role is kept alive."""
    role, word = event(chunk({"role": "assistant"})), event(chunk({"content": "a"}))
    words: list[Step] = [word, Pause(0.02)] * 500
    busy = Script([role, *words])
    request = ChatRequest(model="model", body={"messages": HELLO})
    has_slot, kept_alive = asyncio.Event(), asyncio.Event()
    first = Recorder(lambda delta: has_slot.set())
    second = Recorder(lambda delta: kept_alive.set() if len(second.deltas) > 3 else None)
    async with Provider(busy, Script([role, Pause()])) as provider:
        async with node(provider.url, kind="transformers", first_token_timeout=0.5) as protocol:
            tasks = [asyncio.create_task(protocol.rpc_chat(request, first.emit))]
            await has_slot.wait()
            tasks.append(asyncio.create_task(protocol.rpc_chat(request, second.emit)))
            await asyncio.wait_for(kept_alive.wait(), 10)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    assert not any(delta.tokens for delta in second.deltas)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ('`top_p` has to be a "float"', InvalidRequest),
        ("`stop` has to be a list\nof strings", InvalidRequest),
        ("out of memory\n", NodeError),
    ],
)
async def test_errors_that_are_not_valid_json(message: str, error: type[SubnetError]) -> None:
    """The message of an error that transformers serve has not escaped decides like any other."""
    script = raw(event(chunk({"role": "assistant"})), f'data: {{"error": "{message}"}}\n\n')
    async with Provider(script) as provider, node(provider.url, kind="transformers") as protocol:
        with pytest.raises(error) as caught:
            await chat(protocol)
    assert type(caught.value) is error
    assert message.partition("\n")[0] in caught.value.message


@pytest.mark.parametrize("version", ["0.11.0", "0.32.0", "0.1.dev9+g1", ""])
def test_guided_parameters_on_newer_vllm(version: str) -> None:
    """vLLM has no guided_* since it has structured_outputs; an unknown version is taken for a new one."""
    quirks = quirks_for(NodeSpec(url="http://h", kind="vllm"), version)
    both: dict[str, Any] = {"guided_json": {}, "structured_outputs": {"json": {}}}
    assert sent({"guided_json": {}}, quirks) == sent({"structured_outputs": {"json": {}}}, quirks)
    assert sent({"guided_json": {}}, quirks) == {"structured_outputs": {"json": {}}}
    with pytest.raises(InvalidRequest, match="both"):
        sent(both, quirks)


def test_structured_outputs_on_older_vllm() -> None:
    """Before version 0.11, vLLM has a parameter for each kind of structured outputs."""
    quirks = quirks_for(NodeSpec(url="http://h", kind="vllm"), "0.10.2")
    assert sent({"structured_outputs": {"choice": ["a"]}}, quirks) == {"guided_choice": ["a"]}
    assert sent({"guided_regex": "a"}, quirks) == {"guided_regex": "a"}
    with pytest.raises(InvalidRequest, match="exactly one"):
        sent({"structured_outputs": {"structural_tag": "{}"}}, quirks)


def test_providers_are_recognised_by_hostname() -> None:
    """Providers are recognised by hostname, unless another type is configured."""
    body = {"max_completion_tokens": 5, "seed": 1}
    assert extra_fields(None, body, url="https://api.mistral.ai/v1") == {"max_tokens": 5, "random_seed": 1}
    assert extra_fields("openai", body, url="https://api.deepseek.com") == {"max_tokens": 5, "seed": 1}
    assert extra_fields(None, body, url="https://api.openai.com/v1") == body
    assert extra_fields("vllm", body, url="https://api.mistral.ai/v1") == body


@pytest.mark.parametrize(
    ("spec", "role"),
    [
        ({"url": "https://api.openai.com/v1"}, "developer"),
        ({"url": "https://ours.openai.azure.com/openai/v1"}, "developer"),
        ({"url": "https://openrouter.ai/api/v1"}, "developer"),
        ({"url": "https://api.deepseek.com"}, "system"),
        ({"url": "http://h"}, "system"),
        ({"url": "http://h", "kind": "vllm"}, "system"),
    ],
)
def test_developer_role(spec: dict[str, Any], role: str) -> None:
    """The role developer becomes system for servers that do not support it."""
    messages = [{"role": "developer", "content": "Be brief."}, *HELLO]
    body = build_body(ChatRequest(model="m", body={"messages": messages}), quirks_for(NodeSpec(**spec)), "m")
    assert body["messages"] == [{"role": role, "content": "Be brief."}, *HELLO]
    assert messages[0]["role"] == "developer"


# Prefixes.


@pytest.mark.parametrize(
    ("spec", "more", "message"),
    [
        ({"kind": "vllm"}, {"continue_final_message": True, "add_generation_prompt": False}, {}),
        ({"kind": "sglang"}, {"continue_final_message": True, "add_generation_prompt": False}, {}),
        ({"kind": "llama-server"}, {}, {}),
        ({"kind": "ollama"}, {}, {}),
        ({"url": "https://api.mistral.ai/v1"}, {}, {"prefix": True}),
        ({"url": "https://api.deepseek.com/beta"}, {}, {"prefix": True}),
        ({"url": "https://api.moonshot.ai/v1"}, {}, {"partial": True}),
        ({"url": "https://api.groq.com/openai/v1"}, {}, {}),
        ({"kind": "openai", "prefill": True}, {}, {}),
    ],
)
def test_prefix_is_the_last_message(spec: dict[str, Any], more: dict[str, Any], message: dict[str, Any]) -> None:
    """A prefix is sent as a trailing assistant message, with the fields that the server requires."""
    quirks = quirks_for(NodeSpec(**{"url": "http://h", **spec}))
    body = build_body(ChatRequest(model="m", body={"messages": HELLO}, prefix="Once"), quirks, "m")
    assert quirks.prefill
    assert body["messages"] == [*HELLO, {"role": "assistant", "content": "Once", **message}]
    assert {name: value for name, value in body.items() if name not in OURS} == more


async def test_the_seed_of_a_continuation() -> None:
    """A continuation does not draw with the seed of the answer's beginning, and the same one draws the same again."""
    async with Provider() as provider, node(provider.url, kind="vllm") as protocol:
        for prefix in ("", "Once", "Once", "Once upon"):
            await chat(protocol, prefix=prefix, seed=7)
        seeds = [request.body["seed"] for request in provider.chat_requests]
    assert seeds[0] == 7
    assert seeds[1] == seeds[2]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("spec", "prefills"),
    [
        ({}, False),
        ({"kind": "tgi"}, False),
        ({"kind": "lmstudio"}, False),
        ({"url": "https://openrouter.ai/api/v1"}, False),
        ({"url": "https://openrouter.ai/api/v1", "prefill": True}, True),
        ({"url": "https://api.deepseek.com"}, False),
        ({"kind": "vllm"}, True),
        ({"kind": "vllm", "prefill": False}, False),
    ],
)
def test_prefill_setting(spec: dict[str, Any], prefills: bool) -> None:
    """The setting prefill overrides what is known about the type of server."""
    assert quirks_for(NodeSpec(**{"url": "http://h", **spec})).prefill is prefills


async def test_rejected_prefix_is_a_node_error() -> None:
    """A server that rejects a prefix raises NodeError, and its prefill capability is removed."""
    message = "This model does not support assistant message prefill. The conversation must end with a user message."
    scripts = [error_response(400, code="context_length_exceeded"), error_response(400, message), error_response(400)]
    async with Provider(*scripts) as provider, node(provider.url, prefill=True) as protocol:
        for prefills in (True, False):
            with pytest.raises(NodeError, match="cannot continue a partial answer"):
                await chat(protocol, prefix="One")
            assert (await protocol.rpc_info()).capabilities.prefill is prefills
        with pytest.raises(InvalidRequest):
            await chat(protocol)


async def test_prefill_capability() -> None:
    """The prefill capability is part of the node's info."""
    async with Provider() as provider:
        async with node(provider.url, kind="vllm") as protocol:
            assert (await protocol.rpc_info()).capabilities.prefill
        async with node(provider.url) as protocol:
            assert not (await protocol.rpc_info()).capabilities.prefill


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two three four.", " three four."),
        (" three four.", " three four."),
        ("One two", ""),
        ("One t", "One t"),
        ("One too many", "One too many"),
    ],
)
async def test_repeated_prefix_is_removed(text: str, expected: str) -> None:
    """A prefix that the server repeats completely is removed, unless its type is known not to repeat it."""
    async with Provider(answer(text)) as provider:
        async with node(provider.url, prefill=True) as protocol:
            assert (await chat(protocol, prefix="One two")).text() == expected
        async with node(provider.url, kind="vllm") as protocol:
            assert (await chat(protocol, prefix="One two")).text() == text


@given(prefix=st.text("ab", max_size=6), text=st.text("ab", max_size=12), cuts=st.lists(st.integers(0, 12), max_size=4))
def test_prefix_is_removed_however_it_is_split(prefix: str, text: str, cuts: list[int]) -> None:
    """The result of removing a prefix does not depend on how the text is split."""
    prefix_filter = PrefixFilter(prefix)
    at = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(at)]
    assert "".join([prefix_filter.feed(piece) for piece in pieces] + [prefix_filter.flush()]) == text.removeprefix(
        prefix
    )


# Models.


async def cards_of(provider: Provider, **spec: Any) -> list[ModelCard]:
    async with node(provider.url, **spec) as protocol:
        return list((await protocol.rpc_info()).cards)


async def test_info() -> None:
    """A node's info has its type, models and capacity."""
    async with Provider() as provider, node(provider.url, concurrency=7, name="ours") as protocol:
        info = await protocol.rpc_info()
        assert (info.engine, info.capacity, info.running, info.draining) == ("openai", 7, 0, False)
        assert info.limited
        assert info.cards == (ModelCard(id="model", context_length=0, tokenizer="", created=1, lane="chat"),)
        assert protocol.peer == "ours"


@pytest.mark.parametrize(
    ("entry", "context_length", "modalities"),
    [
        ({"id": "m", "max_model_len": 512}, 512, ()),
        (
            {"id": "m", "context_length": 512, "architecture": {"input_modalities": ["text", "image", "file"]}},
            512,
            ("image", "file"),
        ),
        ({"id": "m", "context_window": 512}, 512, ()),
        (
            {"id": "m", "max_context_length": 512, "capabilities": {"completion_chat": True, "vision": True}},
            512,
            ("image",),
        ),
        ({"id": "m", "meta": {"n_ctx_train": 512}, "architecture": {}}, 512, ()),
        ({"id": "m", "meta": {"n_ctx_train": 8192, "n_ctx": 512}}, 512, ()),
        (
            {
                "id": "m",
                "max_model_len": None,
                "context_length": -1,
                "context_window": "big",
                "architecture": 1,
                "capabilities": 1,
            },
            0,
            (),
        ),
    ],
)
async def test_model_list_details(entry: Any, context_length: int, modalities: tuple[str, ...]) -> None:
    """Context length and modalities are read from every server's model list, and invalid values are ignored."""
    async with Provider(models=[entry]) as provider:
        (card,) = await cards_of(provider)
    assert (card.context_length, card.modalities) == (context_length, modalities)


async def test_openai_models_accept_images() -> None:
    """OpenAI's own models accept images, although the model list does not say so."""
    async with Provider() as provider:
        proxy = provider.url.removesuffix("/v1")
        async with node("http://api.openai.com/v1", proxy=proxy) as protocol:
            (card,) = (await protocol.rpc_info()).cards
        assert provider.requests[0].headers["Host"] == "api.openai.com"
    assert card.modalities == ("image",)


async def test_llama_server_props() -> None:
    """Details of llama-server's model are read from /props, if it exists."""
    props = {"default_generation_settings": {"n_ctx": 512}, "modalities": {"vision": True, "audio": False}}
    models = [{"id": "m", "meta": {"n_ctx_train": 8192}}]
    async with Provider(models=models, routes={"/props": props}) as provider:
        (card,) = await cards_of(provider, kind="llama-server")
        assert (card.context_length, card.modalities) == (512, ("image",))
    async with Provider(models=models) as provider:
        (card,) = await cards_of(provider, kind="llama-server")
        assert (card.context_length, card.modalities) == (8192, ())


async def test_ollama_details() -> None:
    """Details of each Ollama model are requested once, and embedding models are left out."""
    details = {
        "small:latest": {"model_info": {"llama.context_length": 8192}, "capabilities": ["completion", "vision"]},
        "set:7b": {"parameters": 'stop "x"\nnum_ctx   4096\n', "model_info": {"llama.context_length": 8192}},
        "embeds:latest": {"model_info": {}, "capabilities": ["embedding"]},
    }
    routes = {"/api/show": lambda request: details[request.body["model"]]}
    async with Provider(models=list(details), routes=routes) as provider:
        async with node(provider.url, kind="ollama") as protocol:
            small, set_ = (await protocol.rpc_info()).cards
            protocol._models.invalidate()
            await protocol.rpc_info()
        assert (small.id, small.context_length, small.modalities) == ("small:latest", 8192, ("image",))
        assert (set_.id, set_.context_length) == ("set:7b", 4096)
        assert len(provider.requests_to("/api/show")) == 3
        (card,) = await cards_of(provider, kind="ollama", models={"ours": "small"})
        assert (card.id, card.context_length) == ("ours", 8192)


async def test_context_length_of_a_loaded_ollama_model() -> None:
    """What Ollama has loaded is what counts: it would shorten a longer conversation without a word."""
    loaded: dict[str, Any] = {"models": []}
    routes = {
        "/api/show": {"model_info": {"llama.context_length": 131072}},
        "/api/ps": lambda request: loaded,
    }
    async with Provider(models=["small:latest", "other:latest"], routes=routes) as provider:
        async with node(provider.url, kind="ollama") as protocol:
            assert [card.context_length for card in (await protocol.rpc_info()).cards] == [131072, 131072]
            running = [{"name": "small:latest", "context_length": 4096}, {"name": "other:latest"}, None]
            loaded = {"models": running}
            protocol._models.invalidate()
            assert [card.context_length for card in (await protocol.rpc_info()).cards] == [4096, 131072]
            assert len(provider.requests_to("/api/show")) == 2


async def test_lm_studio_model_list() -> None:
    """LM Studio's own model list is used if it exists, without embedding models."""
    data = [
        {"id": "sees", "type": "vlm", "max_context_length": 32768, "loaded_context_length": 4096},
        {"id": "embeds", "type": "embeddings", "max_context_length": 2048},
    ]
    async with Provider(routes={"/api/v0/models": {"data": data}}) as provider:
        (card,) = await cards_of(provider, kind="lmstudio")
        assert (card.id, card.context_length, card.modalities) == ("sees", 4096, ("image",))
    async with Provider() as provider:
        assert [card.id for card in await cards_of(provider, kind="lmstudio")] == ["model"]


async def test_tgi_info() -> None:
    """TGI's context length is read from /info, and its model is called tgi."""
    async with Provider(routes={"/info": {"max_total_tokens": 512}}) as provider:
        (card,) = await cards_of(provider, kind="tgi")
        assert card.context_length == 512
        async with node(provider.url, kind="tgi") as protocol:
            await chat(protocol)
        async with node(provider.url, kind="tgi", models={"ours": "an-adapter"}) as protocol:
            await chat(protocol, model="ours")
        assert [request.body["model"] for request in provider.chat_requests] == ["tgi", "an-adapter"]


async def test_configured_models() -> None:
    """Configured models, context length and modalities override the server's model list."""
    models = {"a": "model", "b": "elsewhere"}
    async with Provider(models=[{"id": "model", "max_model_len": 512}, "other"]) as provider:
        cards = await cards_of(provider, models=models)
        assert [(card.id, card.context_length) for card in cards] == [("a", 512), ("b", 0)]
        cards = await cards_of(provider, models=models, context_length=64, modalities=("audio",))
        assert [(card.context_length, card.modalities) for card in cards] == [(64, ("audio",))] * 2


@pytest.mark.parametrize("status", [404, 405])
async def test_missing_model_list(status: int) -> None:
    """A server without a model list needs configured models, and the error says so."""
    async with Provider(models=error_response(status)) as provider:
        assert [card.id for card in await cards_of(provider, models={"a": "b"})] == ["a"]
        with pytest.raises(NodeError, match="`models`"):
            await cards_of(provider)


async def test_failing_model_list() -> None:
    """Configured models are used if the list fails from the start; a list that has worked must go on working."""
    async with Provider(models=error_response(500)) as provider:
        async with node(provider.url, models={"a": "b"}) as protocol:
            assert [card.id for card in (await protocol.rpc_info()).cards] == ["a"]
            assert (await chat(protocol, model="a")).text()
            provider.models = ["b"]
            protocol._models.invalidate()
            await protocol.rpc_info()
            provider.models = error_response(500)
            protocol._models.invalidate()
            with pytest.raises(NodeError):
                await protocol.rpc_info()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (error_response(401, "no such key"), Unauthorized),
        (error_response(403), Unauthorized),
        (error_response(429, retry_after=100), RateLimited),
        (error_response(500), NodeError),
        (error_response(503), NodeError),
        (error_response(400, "say who you are"), NodeError),
        (connection_reset(), NodeLost),
        (json_response({"data": {}}), WireError),
        (json_response(1), WireError),
    ],
)
async def test_model_list_errors(script: Script, error: type[SubnetError]) -> None:
    """An error of the model list fails the health check with the matching error."""
    async with Provider(models=script) as provider:
        with pytest.raises(error):
            await cards_of(provider)


async def test_model_list_is_cached() -> None:
    """The model list is cached until the server is lost."""
    async with Provider(connection_reset(), answer()) as provider, node(provider.url) as protocol:
        for _ in range(3):
            await protocol.rpc_info()
        assert len(provider.requests_to("/v1/models")) == 1
        with pytest.raises(NodeLost):
            await chat(protocol)
        for _ in range(3):
            await protocol.rpc_info()
        assert len(provider.requests_to("/v1/models")) == 2


@pytest.mark.parametrize("script", [error_response(401), error_response(429, retry_after=100)])
async def test_rejected_model_list_is_not_requested_again(script: Script) -> None:
    """A rejected model list is not requested again before Retry-After, or for a while after a rejected key."""
    async with Provider(models=script) as provider, node(provider.url) as protocol:
        messages = set()
        for _ in range(3):
            with pytest.raises((Unauthorized, RateLimited)) as caught:
                await protocol.rpc_info()
            messages.add(caught.value.message)
        assert len(provider.requests) == len(messages) == 1


async def test_failed_model_list_is_requested_again() -> None:
    """A model list that failed is requested again by the next health check."""
    async with Provider(models=error_response(500)) as provider, node(provider.url) as protocol:
        with pytest.raises(NodeError):
            await protocol.rpc_info()
        provider.models = ["model"]
        assert [card.id for card in (await protocol.rpc_info()).cards] == ["model"]


async def test_busy_server_keeps_its_models() -> None:
    """A rate-limited model list leaves the known models in use."""
    async with Provider() as provider, node(provider.url) as protocol:
        await protocol.rpc_info()
        protocol._models.invalidate()
        provider.models = error_response(429, retry_after=100)
        for _ in range(3):
            assert [card.id for card in (await protocol.rpc_info()).cards] == ["model"]
        assert len(provider.requests_to("/v1/models")) == 2


def test_key_is_in_no_repr() -> None:
    """An API key is not part of the protocol's repr, attributes or name."""
    protocol = OpenAIProtocol(NodeSpec(url="https://h/v1", api_key="sk-a-secret", headers={"x": "y"}))
    assert "sk-a-secret" not in repr(protocol) + repr(vars(protocol)) + protocol.peer
