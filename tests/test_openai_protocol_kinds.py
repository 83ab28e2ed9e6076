"""What kinds of servers take, which models they say they have, and how they go on with an answer that was begun."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.chat import ChatRequest
from subnet.errors import InvalidRequest, NodeError, NodeLost, RateLimited, SubnetError, Unauthorized, WireError
from subnet.http.node_spec import NodeSpec
from subnet.node_info import ModelCard
from subnet.protocols.openai import OpenAIProtocol
from subnet.protocols.openai.prefix_filter import PrefixFilter
from subnet.protocols.openai.quirks import quirks_for
from subnet.protocols.openai.request import build_body
from tests.chat_node import HELLO, heard_of, node
from tests.provider import Provider, Script, answer, refuse, reset, whole

OURS = ("messages", "model", "stream", "stream_options")


def posted(kind: str | None, body: dict[str, Any], *, url: str = "http://h", prefix: str = "") -> dict[str, Any]:
    """What a server of that kind is asked, beyond what all are."""
    quirks = quirks_for(NodeSpec(url=url, kind=kind))  # type: ignore[arg-type]
    found = build_body(ChatRequest(model="model", body={"messages": HELLO, **body}, prefix=prefix), quirks, "theirs")
    return {name: value for name, value in found.items() if name not in OURS}


# Parameters.


@pytest.mark.parametrize(
    ("kind", "body", "sent"),
    [
        (
            "openai",
            {"max_completion_tokens": 5, "logit_bias": {"1": 2}},
            {"max_completion_tokens": 5, "logit_bias": {"1": 2}},
        ),
        (None, {"max_completion_tokens": 5, "store": True}, {"max_completion_tokens": 5, "store": True}),
        ("vllm", {"top_k": 3, "guided_regex": "a"}, {"top_k": 3, "guided_regex": "a"}),
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
        # It refuses a top_p of 1, and takes a presence penalty of 0 for a repetition penalty of 2.
        ("tgi", {"top_p": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "stop": ["x"]}, {"stop": ["x"]}),
        ("tgi", {"tool_choice": "required", "tools": [{}]}, {"tool_choice": "required", "tools": [{}]}),
        ("lmstudio", {"max_completion_tokens": 5, "repetition_penalty": 1.5}, {"max_tokens": 5, "repeat_penalty": 1.5}),
        ("lmstudio", {"logprobs": False}, {}),
    ],
)
def test_parameters_are_put_as_the_server_knows_them(
    kind: str | None, body: dict[str, Any], sent: dict[str, Any]
) -> None:
    """Renamed where it has its own names, left out where they say nothing."""
    assert posted(kind, body) == sent


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
    ],
)
async def test_what_a_server_would_drop_is_refused_by_name(kind: str, name: str, value: Any) -> None:
    """Before it is asked."""
    async with Provider() as provider, node(provider.url, kind=kind) as protocol:
        with pytest.raises(InvalidRequest) as caught:
            await heard_of(protocol, **{name: value})
        assert (caught.value.param, provider.chats) == (name, [])


def test_providers_are_known_by_their_hosts() -> None:
    """Unless another kind is named."""
    body = {"max_completion_tokens": 5, "seed": 1}
    assert posted(None, body, url="https://api.mistral.ai/v1") == {"max_tokens": 5, "random_seed": 1}
    assert posted("openai", body, url="https://api.deepseek.com") == {"max_tokens": 5, "seed": 1}
    assert posted(None, body, url="https://api.openai.com/v1") == body
    assert posted("vllm", body, url="https://api.mistral.ai/v1") == body


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
def test_developers_are_the_system_where_nobody_knows_them(spec: dict[str, Any], role: str) -> None:
    """Most servers, and most chat templates behind them, refuse the role."""
    messages = [{"role": "developer", "content": "Be brief."}, *HELLO]
    body = build_body(ChatRequest(model="m", body={"messages": messages}), quirks_for(NodeSpec(**spec)), "m")
    assert body["messages"] == [{"role": role, "content": "Be brief."}, *HELLO]
    assert messages[0]["role"] == "developer"


# Answers that were begun.


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
def test_an_answer_that_was_begun_is_the_last_message(
    spec: dict[str, Any], more: dict[str, Any], message: dict[str, Any]
) -> None:
    """With what the server wants to have said about it."""
    quirks = quirks_for(NodeSpec(**{"url": "http://h", **spec}))
    body = build_body(ChatRequest(model="m", body={"messages": HELLO}, prefix="Once"), quirks, "m")
    assert quirks.prefill
    assert body["messages"] == [*HELLO, {"role": "assistant", "content": "Once", **message}]
    assert {name: value for name, value in body.items() if name not in OURS} == more


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
def test_whether_a_server_goes_on_is_declared(spec: dict[str, Any], prefills: bool) -> None:
    """What the operator says is more than what is known of its kind."""
    assert quirks_for(NodeSpec(**{"url": "http://h", **spec})).prefill is prefills


async def test_a_server_that_refuses_to_go_on_is_not_at_its_end() -> None:
    """Another node may: what the client asked for was right. The server is not asked for that again."""
    said = "This model does not support assistant message prefill. The conversation must end with a user message."
    scripts = [refuse(400, code="context_length_exceeded"), refuse(400, said), refuse(400)]
    async with Provider(*scripts) as provider, node(provider.url, prefill=True) as protocol:
        for prefills in (True, False):
            with pytest.raises(NodeError, match="cannot continue a partial answer"):
                await heard_of(protocol, prefix="One")
            assert (await protocol.rpc_info()).capabilities.prefill is prefills
        with pytest.raises(InvalidRequest):
            await heard_of(protocol)


async def test_the_capability_is_in_the_info() -> None:
    """Which is where the session looks."""
    async with Provider() as provider:
        async with node(provider.url, kind="vllm") as protocol:
            assert (await protocol.rpc_info()).capabilities.prefill
        async with node(provider.url) as protocol:
            assert not (await protocol.rpc_info()).capabilities.prefill


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("One two three four.", " three four."),
        (" three four.", " three four."),
        ("One two", ""),
        ("One t", "One t"),
        ("One too many", "One too many"),
    ],
)
async def test_a_beginning_that_is_repeated_is_heard_once(said: str, heard: str) -> None:
    """Only if all of it is repeated, exactly, and the server is none that is known not to."""
    async with Provider(answer(said)) as provider:
        async with node(provider.url, prefill=True) as protocol:
            assert (await heard_of(protocol, prefix="One two")).text() == heard
        async with node(provider.url, kind="vllm") as protocol:
            assert (await heard_of(protocol, prefix="One two")).text() == said


@given(begun=st.text("ab", max_size=6), text=st.text("ab", max_size=12), cuts=st.lists(st.integers(0, 12), max_size=4))
def test_a_beginning_is_taken_away_however_it_is_cut(begun: str, text: str, cuts: list[int]) -> None:
    """What is left does not depend on the pieces."""
    repeated = PrefixFilter(begun)
    at = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(at)]
    assert "".join([repeated.feed(piece) for piece in pieces] + [repeated.flush()]) == text.removeprefix(begun)


# Models.


async def cards_of(provider: Provider, **spec: Any) -> list[ModelCard]:
    async with node(provider.url, **spec) as protocol:
        return list((await protocol.rpc_info()).cards)


async def test_a_node_says_what_it_is() -> None:
    """Its kind, its models, and how many answers it may be asked for at once."""
    async with Provider() as provider, node(provider.url, concurrency=7, name="ours") as protocol:
        info = await protocol.rpc_info()
        assert (info.engine, info.capacity, info.running, info.draining) == ("openai", 7, 0, False)
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
async def test_a_list_says_what_it_says(entry: Any, context_length: int, modalities: tuple[str, ...]) -> None:
    """vLLM, OpenRouter, Groq, Mistral, llama-server; nothing is made of nonsense."""
    async with Provider(models=[entry]) as provider:
        (card,) = await cards_of(provider)
    assert (card.context_length, card.modalities) == (context_length, modalities)


async def test_models_of_openai_itself_see() -> None:
    """Its list does not say so."""
    async with Provider() as provider:
        proxy = provider.url.removesuffix("/v1")
        async with node("http://api.openai.com/v1", proxy=proxy) as protocol:
            (card,) = (await protocol.rpc_info()).cards
        assert provider.seen[0].headers["Host"] == "api.openai.com"
    assert card.modalities == ("image",)


async def test_llama_server_says_more_in_its_props() -> None:
    """Older ones only there; a server without them does not."""
    props = {"default_generation_settings": {"n_ctx": 512}, "modalities": {"vision": True, "audio": False}}
    models = [{"id": "m", "meta": {"n_ctx_train": 8192}}]
    async with Provider(models=models, routes={"/props": props}) as provider:
        (card,) = await cards_of(provider, kind="llama-server")
        assert (card.context_length, card.modalities) == (512, ("image",))
    async with Provider(models=models) as provider:
        (card,) = await cards_of(provider, kind="llama-server")
        assert (card.context_length, card.modalities) == (8192, ())


async def test_ollama_shows_each_model_once() -> None:
    """What it is loaded with counts; what only embeds does not chat; the tag "latest" may be left out."""
    shown = {
        "small:latest": {"model_info": {"llama.context_length": 8192}, "capabilities": ["completion", "vision"]},
        "set:7b": {"parameters": 'stop "x"\nnum_ctx   4096\n', "model_info": {"llama.context_length": 8192}},
        "embeds:latest": {"model_info": {}, "capabilities": ["embedding"]},
    }
    routes = {"/api/show": lambda seen: shown[seen.body["model"]]}
    async with Provider(models=list(shown), routes=routes) as provider:
        async with node(provider.url, kind="ollama") as protocol:
            small, set_ = (await protocol.rpc_info()).cards
            protocol._models.invalidate()
            await protocol.rpc_info()
        assert (small.id, small.context_length, small.modalities) == ("small:latest", 8192, ("image",))
        assert (set_.id, set_.context_length) == ("set:7b", 4096)
        assert len(provider.asked("/api/show")) == 3
        (card,) = await cards_of(provider, kind="ollama", models={"ours": "small"})
        assert (card.id, card.context_length) == ("ours", 8192)


async def test_lm_studio_has_a_better_list() -> None:
    """Of which embedding models are none that chat; older ones have the usual list only."""
    data = [
        {"id": "sees", "type": "vlm", "max_context_length": 32768, "loaded_context_length": 4096},
        {"id": "embeds", "type": "embeddings", "max_context_length": 2048},
    ]
    async with Provider(routes={"/api/v0/models": {"data": data}}) as provider:
        (card,) = await cards_of(provider, kind="lmstudio")
        assert (card.id, card.context_length, card.modalities) == ("sees", 4096, ("image",))
    async with Provider() as provider:
        assert [card.id for card in await cards_of(provider, kind="lmstudio")] == ["model"]


async def test_tgi_says_more_in_its_info() -> None:
    """How much prompt and answer may be together."""
    async with Provider(routes={"/info": {"max_total_tokens": 512}}) as provider:
        (card,) = await cards_of(provider, kind="tgi")
        assert card.context_length == 512
        async with node(provider.url, kind="tgi") as protocol:
            await heard_of(protocol)
        async with node(provider.url, kind="tgi", models={"ours": "an-adapter"}) as protocol:
            await heard_of(protocol, model="ours")
        assert [seen.body["model"] for seen in provider.chats] == ["tgi", "an-adapter"]


async def test_what_the_operator_says_of_the_models_counts() -> None:
    """Their names, whether they are listed or not, context length and modalities."""
    models = {"a": "model", "b": "elsewhere"}
    async with Provider(models=[{"id": "model", "max_model_len": 512}, "other"]) as provider:
        cards = await cards_of(provider, models=models)
        assert [(card.id, card.context_length) for card in cards] == [("a", 512), ("b", 0)]
        cards = await cards_of(provider, models=models, context_length=64, modalities=("audio",))
        assert [(card.context_length, card.modalities) for card in cards] == [(64, ("audio",))] * 2


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_a_list_has_the_models_that_are_named(status: int) -> None:
    """Where none is named it cannot be used, and the message says what is to be done."""
    async with Provider(models=refuse(status)) as provider:
        assert [card.id for card in await cards_of(provider, models={"a": "b"})] == ["a"]
        with pytest.raises(NodeError, match="`models`"):
            await cards_of(provider)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (refuse(401, "no such key"), Unauthorized),
        (refuse(403), Unauthorized),
        (refuse(429, retry_after=100), RateLimited),
        (refuse(500), NodeError),
        (refuse(400, "say who you are"), NodeError),
        (reset(), NodeLost),
        (whole({"data": {}}), WireError),
        (whole(1), WireError),
    ],
)
async def test_a_list_that_is_refused_is_a_node_that_cannot_be_used(script: Script, error: type[SubnetError]) -> None:
    """With the server's reason."""
    async with Provider(models=script) as provider:
        with pytest.raises(error):
            await cards_of(provider)


async def test_a_server_is_not_asked_for_its_models_all_the_time() -> None:
    """Once, while all is well; again after it was lost."""
    async with Provider(reset(), answer()) as provider, node(provider.url) as protocol:
        for _ in range(3):
            await protocol.rpc_info()
        assert len(provider.asked("/v1/models")) == 1
        with pytest.raises(NodeLost):
            await heard_of(protocol)
        for _ in range(3):
            await protocol.rpc_info()
        assert len(provider.asked("/v1/models")) == 2


@pytest.mark.parametrize("script", [refuse(401), refuse(429, retry_after=100)])
async def test_a_server_that_refuses_is_left_alone(script: Script) -> None:
    """For as long as it says, and with a wrong key for a while."""
    async with Provider(models=script) as provider, node(provider.url) as protocol:
        messages = set()
        for _ in range(3):
            with pytest.raises((Unauthorized, RateLimited)) as caught:
                await protocol.rpc_info()
            messages.add(caught.value.message)
        assert len(provider.seen) == len(messages) == 1


async def test_a_server_that_is_back_is_used_again() -> None:
    """A failure is not remembered."""
    async with Provider(models=refuse(500)) as provider, node(provider.url) as protocol:
        with pytest.raises(NodeError):
            await protocol.rpc_info()
        provider.models = ["model"]
        assert [card.id for card in (await protocol.rpc_info()).cards] == ["model"]


async def test_a_server_that_is_busy_keeps_its_models() -> None:
    """They were listed before; a request for an answer finds out by itself."""
    async with Provider() as provider, node(provider.url) as protocol:
        await protocol.rpc_info()
        protocol._models.invalidate()
        provider.models = refuse(429, retry_after=100)
        for _ in range(3):
            assert [card.id for card in (await protocol.rpc_info()).cards] == ["model"]
        assert len(provider.asked("/v1/models")) == 2


def test_a_node_shows_no_key() -> None:
    """Neither in its name nor in what it is made of."""
    protocol = OpenAIProtocol(NodeSpec(url="https://h/v1", api_key="sk-a-secret", headers={"x": "y"}))
    assert "sk-a-secret" not in repr(protocol) + repr(vars(protocol)) + protocol.peer
