"""Detection of servers by their documented responses, and again after outages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from subnet.chat import ChatRequest
from subnet.detect.detect import DetectedServer, detect
from subnet.detect.upstream_protocol import UpstreamProtocol
from subnet.engines.echo import EchoEngine
from subnet.errors import NodeError, NodeLost, NodeTimeout, Unauthorized
from subnet.http.node_spec import Kind, NodeSpec
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.protocols.base import Protocol
from tests.llama_server import llama_server


def models(owner: str, *names: str, **more: object) -> dict[str, object]:
    """Return a model list in OpenAI's format."""
    card = {"object": "model", "created": 1764000000, "owned_by": owner, **more}
    return {"object": "list", "data": [{"id": name, **card} for name in names]}


# Responses from each server's documentation, reduced to what matters here.
VLLM = {
    "/v1/models": models("vllm", "Qwen/Qwen3-8B", root="Qwen/Qwen3-8B", max_model_len=40960),
    "/version": {"version": "0.11.2"},
    "/health": "",
}
SGLANG = {
    "/v1/models": models("sglang", "qwen/qwen2.5-0.5b-instruct", max_model_len=32768),
    "/model_info": {
        "model_path": "qwen/qwen2.5-0.5b-instruct",
        "tokenizer_path": "qwen/qwen2.5-0.5b-instruct",
        "is_generation": True,
        "preferred_sampling_params": None,
    },
    "/server_info": {"model_path": "qwen/qwen2.5-0.5b-instruct", "version": "0.5.9", "internal_states": [{}]},
}
OLD_SGLANG = {
    "/v1/models": SGLANG["/v1/models"],
    "/get_model_info": SGLANG["/model_info"],
    "/get_server_info": SGLANG["/server_info"],
}
LLAMA = {
    "/v1/models": models("llamacpp", "qwen.gguf", meta={"n_ctx_train": 32768}),
    "/props": {
        "default_generation_settings": {"id": 0, "n_ctx": 4096},
        "total_slots": 4,
        "model_path": "/somewhere/else/qwen.gguf",
        "chat_template": "",
        "build_info": "b6900-1d49ca37",
    },
}
OLLAMA = {
    "/v1/models": models("library", "llama3.2", "qwen3:1.7b", "gemma3", "phi4", "smollm2"),
    "/api/version": {"version": "0.12.6"},
    "/api/show": {"model_info": {"llama.context_length": 131072}, "capabilities": ["completion"]},
}
TGI = {
    "/info": {
        "model_id": "mistralai/Ministral-8B-Instruct-2410",
        "max_concurrent_requests": 128,
        "max_total_tokens": 32768,
        "router": "text-generation-router",
        "version": "3.2.1",
    },
    "/v1/models": models("mistralai/Ministral-8B-Instruct-2410", "mistralai/Ministral-8B-Instruct-2410"),
}
LM_STUDIO = {
    "/v1/models": models("organization_owner", "granite-3.0-2b-instruct"),
    "/api/v0/models": {
        "object": "list",
        "data": [{"id": "granite-3.0-2b-instruct", "type": "llm", "state": "loaded", "max_context_length": 4096}],
    },
}
OPENAI = {"/v1/models": models("system", "gpt-4o-mini", "gpt-4o")}


async def _refuse_to_load(_: web.Request) -> web.Response:
    return web.json_response({"detail": "Missing `model` field in the request body."}, status=422)


# transformers 5.19, run: it lists all models that it has in its cache, which may be none.
TRANSFORMERS = {
    "/v1/models": {
        "object": "list",
        "data": [{"owned_by": "Qwen", "id": "Qwen/Qwen3-0.6B", "object": "model", "created": 1796074650.5}],
    },
    "/load_model": _refuse_to_load,
}
KNOWN: list[tuple[Kind, str, Mapping[str, Any]]] = [
    ("vllm", "0.11.2", VLLM),
    ("sglang", "0.5.9", SGLANG),
    ("sglang", "0.5.9", OLD_SGLANG),
    ("llama-server", "b6900", LLAMA),
    ("ollama", "0.12.6", OLLAMA),
    ("tgi", "3.2.1", TGI),
    ("lmstudio", "", LM_STUDIO),
    ("transformers", "", TRANSFORMERS),
    ("openai", "", OPENAI),
    # A single matching response is not enough.
    ("openai", "", {"/v1/models": models("somebody", "m"), "/version": {"version": "1"}}),
    ("openai", "", {"/v1/models": models("vllm", "m")}),
    ("openai", "", {"/v1/models": models("library", "m"), "/api/version": {"version": "1", "deployment": "a"}}),
    # Ollama without models sends null; Together sends the list itself.
    ("ollama", "0.12.6", {"/v1/models": {"object": "list", "data": None}, "/api/version": {"version": "0.12.6"}}),
    ("openai", "", {"/v1/models": [{"id": "m", "object": "model"}]}),
]


class Server:
    """Web server on loopback with `answers` by path: JSON values or handlers, and "*" for all other paths.

    The answers may be replaced at any time. `paths` are the paths that were requested.
    """

    def __init__(self) -> None:
        self.answers: Mapping[str, Any] = {}
        self.paths: list[str] = []
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        answer = self.answers.get(request.path, self.answers.get("*"))
        if callable(answer):
            return cast(web.Response, await answer(request))
        if answer is None:
            return web.json_response({"detail": "Not DetectedServer"}, status=404)
        return web.json_response(answer)


@asynccontextmanager
async def serving(answers: Mapping[str, Any]) -> AsyncIterator[Server]:
    server = Server()
    await server.start(answers)
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def upstream(
    spec: NodeSpec, clock: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[tuple[UpstreamProtocol, list[str]]]:
    """Return the protocol of a node, and the lines that it reports."""
    lines: list[str] = []
    protocol = UpstreamProtocol(spec, report=lines.append, clock=clock)
    try:
        yield protocol, lines
    finally:
        await protocol.aclose()


@pytest.mark.parametrize("below", ["", "/v1", "/v1/"])
@pytest.mark.parametrize(("kind", "version", "answers"), KNOWN, ids=lambda value: value if value else "")
async def test_every_type_is_detected(kind: Kind, version: str, answers: Mapping[str, Any], below: str) -> None:
    """Every type of server is detected with its models, for every form of the address, within 10 requests."""
    async with serving(answers) as server:
        detected = await detect(NodeSpec(url=server.url + below))
    listed = answers["/v1/models"]
    names = [model["id"] for model in (listed if isinstance(listed, list) else listed["data"] or [])]
    assert detected == DetectedServer(kind, version, tuple(names))
    assert len(server.paths) <= 10


async def test_likely_types_are_probed_first() -> None:
    """Only the type that owns the listed models is probed."""
    async with serving(VLLM) as server:
        await detect(NodeSpec(url=server.url))
    assert server.paths == ["/v1/models", "/version"]


async def test_a_failing_server_of_a_known_type() -> None:
    """A server that fails when it is asked again is not taken for one of another type."""

    async def fail(_: web.Request) -> web.Response:
        return web.json_response({"detail": "oh"}, status=503)

    async with serving({**TRANSFORMERS, "/load_model": fail}) as server:
        assert (await detect(NodeSpec(url=server.url))).kind == "openai"
        with pytest.raises(NodeError):
            await detect(NodeSpec(url=server.url), "transformers")


async def test_old_tgi() -> None:
    """A version of TGI without a model list is detected."""
    async with serving({"/info": TGI["/info"]}) as server:
        assert await detect(NodeSpec(url=server.url)) == DetectedServer("tgi", "3.2.1")


async def test_subnet_node() -> None:
    """A subnet node is detected as one, and can be used."""
    engine = EchoEngine()
    async with engine, listening(Node(engine), "127.0.0.1", 0) as url, upstream(NodeSpec(url=url)) as (protocol, lines):
        assert (await detect(protocol.spec)).kind == "subnet"
        info = await protocol.rpc_info()
        assert info.engine == "echo"
        assert len(await protocol.rpc_artefact(info.cards[0].tokenizer)) > 0
    assert lines == [f"{url}: subnet node {info.version}, serves echo, token lane"]


async def test_configured_type() -> None:
    """A configured type is used without any request."""
    async with serving(OPENAI) as server:
        assert await detect(NodeSpec(url=server.url, kind="ollama")) == DetectedServer("ollama")
    assert not server.paths


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({}, "answered 404"),
        ({"/v1/models": {"message": "hello"}}, "returned an unrecognised model list"),
        ({"/healthz": {"status": "ok"}, "/version": {"version": "1"}}, "answered 404"),
    ],
)
async def test_other_api(answers: Mapping[str, Any], why: str) -> None:
    """The error for a server with another API names the address and the response."""
    async with serving(answers) as server:
        with pytest.raises(NodeError, match=f"^no OpenAI-compatible server at {server.url}: .*{why}"):
            await detect(NodeSpec(url=server.url))


async def test_web_page() -> None:
    """A web server that returns a page for every path is not an OpenAI-compatible server."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>It works!</html>", content_type="text/html")

    async with serving({"*": page}) as server:
        with pytest.raises(NodeError, match=f"^no OpenAI-compatible server at {server.url}: "):
            await detect(NodeSpec(url=server.url))


async def test_unreachable() -> None:
    """An unreachable address is reported as such, and no type is guessed."""
    async with serving({}) as server:
        pass
    with pytest.raises(NodeLost, match=f"cannot connect to {server.url}: Connection refused"):
        await detect(NodeSpec(url=server.url))


@pytest.mark.parametrize("status", [301, 500, 503])
async def test_starting_or_failing_server(status: int) -> None:
    """A server that returns errors while it starts is detected as soon as it has started."""

    async def loading(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "Loading model", "code": status}}, status=status)

    answers: dict[str, Any] = {"*": loading}
    async with serving(answers) as server, upstream(NodeSpec(url=server.url)) as (protocol, lines):
        with pytest.raises(NodeError, match=f"^{server.url} answered {status}"):
            await protocol.rpc_info()
        server.answers = OPENAI
        # At once, without a pause.
        await protocol.rpc_info()
    assert len(lines) == 2


async def failing(request: web.Request) -> web.Response:
    return web.json_response({"detail": "boom"}, status=500)


@pytest.mark.parametrize("answers", [{}, {"/v1/models": failing}], ids=["no list", "a list that fails"])
async def test_server_without_a_model_list(answers: dict[str, Any]) -> None:
    """A server that cannot list its models is used if `models` names them, and only then."""
    async with serving(answers) as server:
        with pytest.raises(NodeError):
            await detect(NodeSpec(url=server.url))
        async with upstream(NodeSpec(url=server.url, models={"ours": "theirs"})) as (protocol, lines):
            info = await protocol.rpc_info()
            assert ([card.id for card in info.cards], info.engine) == (["ours"], "openai")
            assert len(lines) == 1


async def test_server_whose_model_list_recovers() -> None:
    """A server whose model list failed at first is detected again, and keeps its type once the list has worked."""
    async with serving({"/v1/models": failing}) as server:
        async with upstream(NodeSpec(url=server.url, lane="chat", models={"m": "llama3.2"})) as (protocol, lines):
            assert (await protocol.rpc_info()).engine == "openai"
            server.answers = OLLAMA
            assert (await protocol.rpc_info()).engine == "ollama"
            server.answers = {"/v1/models": failing}
            assert (await protocol.rpc_info()).engine == "ollama"
    assert len(lines) == 2


async def test_missing_key() -> None:
    """A missing API key is reported as such, and no other path is requested without it."""

    async def guarded(request: web.Request) -> web.Response:
        if request.headers.get("authorization") != "Bearer right":
            return web.json_response({"error": {"message": "no key", "type": "invalid_request_error"}}, status=401)
        return web.json_response(OPENAI["/v1/models"])

    async with serving({"/v1/models": guarded}) as server:
        with pytest.raises(Unauthorized, match="answered 401"):
            await detect(NodeSpec(url=server.url))
        assert server.paths == ["/v1/models"]
        assert (await detect(NodeSpec(url=server.url, api_key="right"))).kind == "openai"


async def test_missing_key_after_the_model_list() -> None:
    """A llama-server that lists its models without a key, but rejects everything else, keeps its type."""

    async def guarded(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "Invalid API Key", "code": 401}}, status=401)

    async with serving({"/v1/models": LLAMA["/v1/models"], "*": guarded}) as server:
        with pytest.raises(Unauthorized, match="Invalid API Key"):
            await detect(NodeSpec(url=server.url))
    # An unknown server that requires a key for every other path is still usable.
    async with serving({"/v1/models": OPENAI["/v1/models"], "*": guarded}) as server:
        assert (await detect(NodeSpec(url=server.url))).kind == "openai"


async def test_silent_server() -> None:
    """Detection of a server that does not respond times out."""
    connections: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NodeTimeout, match=f"detecting the server at http://127.0.0.1:{port} timed out after 0.1 s"):
            await detect(NodeSpec(url=f"http://127.0.0.1:{port}"), detection_timeout=0.1)
        for writer in connections:
            writer.close()


async def test_report_for_the_chat_lane() -> None:
    """The report names the server, the first of its models, and why it is on the chat lane."""
    async with serving(OLLAMA) as server, upstream(NodeSpec(url=server.url + "/v1")) as (protocol, lines):
        info = await protocol.rpc_info()
        assert {card.lane for card in info.cards} == {"chat"}
        await protocol.rpc_info()
    (line,) = lines
    assert line.startswith(f"{server.url}/v1: Ollama 0.12.6, serves llama3.2, qwen3:1.7b, gemma3 (and 2 more), ")
    assert line.endswith(", chat lane: it does not accept token ids")


@pytest.mark.parametrize(("answers", "title"), [(VLLM, "vLLM"), (SGLANG, "SGLang"), (LLAMA, "llama-server")])
async def test_unavailable_tokenizer(answers: Mapping[str, Any], title: str) -> None:
    """A server that accepts tokens is used on the chat lane, with a report, if its tokenizer is unavailable."""
    spec = NodeSpec(url="http://a", tokenizer="/nowhere/tokenizer.json")
    async with serving(answers) as server:
        async with upstream(msgspec.structs.replace(spec, url=server.url)) as (protocol, lines):
            info = await protocol.rpc_info()
            assert info.cards[0].lane == "chat"
    assert lines[0].startswith(f"{server.url}: {title} ")
    assert re.search(", chat lane: no tokenizer for .*; set `tokenizer`", lines[0])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"lane": "chat"}, "as configured"),
        ({"modalities": ("image",)}, "it accepts input other than text"),
        ({"models": {"a": "qwen.gguf", "b": "qwen.gguf"}}, "it serves several models"),
    ],
)
async def test_configured_chat_lane(more: dict[str, Any], why: str) -> None:
    """Settings that require the chat lane are given as the reason, and the tokenizer is not loaded."""
    async with serving(LLAMA) as server, upstream(NodeSpec(url=server.url, **more)) as (protocol, lines):
        await protocol.rpc_info()
    assert lines[0].endswith(f"chat lane: {why}")


@pytest.mark.parametrize(
    ("answers", "why"), [(OLLAMA, "it does not accept token ids"), (LLAMA, "no tokenizer for qwen")]
)
async def test_unavailable_lane(answers: Mapping[str, Any], why: str) -> None:
    """A configured lane is used, or rejected with the reason, but never replaced by the other lane."""
    async with serving(answers) as server, upstream(NodeSpec(url=server.url, lane="token")) as (protocol, lines):
        with pytest.raises(NodeError, match=f"{server.url}: not used, because lane is set to token: {why}"):
            await protocol.rpc_info()
        with pytest.raises(NodeError, match="has not been reached yet"):
            await protocol.rpc_artefact("")
    assert len(lines) == 1


async def test_subnet_node_on_the_chat_lane() -> None:
    """A subnet node cannot be used on the chat lane."""
    engine = EchoEngine()
    async with engine, listening(Node(engine), "127.0.0.1", 0) as url:
        async with upstream(NodeSpec(url=url, lane="chat")) as (protocol, _):
            with pytest.raises(NodeError, match="not used, because lane is set to chat: subnet nodes"):
                await protocol.rpc_info()


async def test_server_that_starts_late() -> None:
    """An unreachable server is reported once, and once more when it has been detected."""
    server = Server()
    await server.start({})
    await server.stop()
    async with upstream(NodeSpec(url=server.url)) as (protocol, lines):
        assert not protocol.checked.is_set()
        for _ in range(3):
            with pytest.raises(NodeLost):
                await protocol.rpc_info()
        assert protocol.checked.is_set()
        await server.start(OPENAI)
        assert [card.id for card in (await protocol.rpc_info()).cards] == ["gpt-4o-mini", "gpt-4o"]
        await server.stop()
    assert lines == [
        f"cannot connect to {server.url}: Connection refused; retrying until it answers",
        f"{server.url}: OpenAI-compatible server, serves gpt-4o-mini, gpt-4o, chat lane: it does not accept token ids",
    ]


async def test_replaced_server() -> None:
    """A server is detected again after an outage, and reported only if its type has changed."""
    async with serving(OLLAMA) as server, upstream(NodeSpec(url=server.url)) as (protocol, lines):
        for answers, kind in ((OLLAMA, "ollama"), (OLLAMA, "ollama"), (LM_STUDIO, "lmstudio")):
            await server.stop()
            await fail(protocol)
            await server.start(answers)
            assert (await protocol.rpc_info()).engine == kind
    assert [line.split(",")[0] for line in lines[1:]] == [f"{server.url}: Ollama 0.12.6", f"{server.url}: LM Studio"]


async def test_restarted_subnet_node() -> None:
    """A subnet node that is restarted at its address is used again without another report."""
    engine = EchoEngine()
    async with engine:
        async with listening(Node(engine), "127.0.0.1", 0) as url:
            pass
        port = int(url.rpartition(":")[2])
        async with upstream(NodeSpec(url=url)) as (protocol, lines):
            with pytest.raises(NodeLost):
                await protocol.rpc_info()
            ids = set()
            for _ in range(2):
                async with listening(Node(engine), "127.0.0.1", port):
                    ids.add((await protocol.rpc_info()).node_id)
                with pytest.raises(NodeLost):
                    await protocol.rpc_info()
    assert len(ids) == 2
    assert [line.split(" ")[0] for line in lines] == ["cannot", f"{url}:"]


async def test_unsupported_after_a_restart() -> None:
    """A server that becomes unsupported is reported, and detected again only after a pause."""
    now = 0.0
    async with serving(OPENAI) as server, upstream(NodeSpec(url=server.url), lambda: now) as (protocol, lines):
        await protocol.rpc_info()
        await server.stop()
        await fail(protocol)
        await server.start({})
        for _ in range(3):
            server.paths.clear()
            with pytest.raises(NodeError, match="no OpenAI-compatible server at"):
                await protocol.rpc_info()
        assert not server.paths
        server.answers, now = OPENAI, 11.0
        await protocol.rpc_info()
    assert [line.split(" ")[0] for line in lines] == [f"{server.url}:", "no", f"{server.url}:"]


async def fail(protocol: UpstreamProtocol) -> None:
    """Fail a request and a health check, so that the server is detected again."""
    with pytest.raises(NodeLost):
        await protocol.rpc_chat(ChatRequest(model="m", body={"messages": []}), lambda delta: None)
    with pytest.raises(NodeLost):
        await protocol.rpc_info()


async def test_cancelled_detection() -> None:
    """Detection continues when its caller is cancelled, and the next caller gets the result."""
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await release.wait()
        return web.json_response(OPENAI["/v1/models"])

    async with serving({"/v1/models": slow}) as server, upstream(NodeSpec(url=server.url)) as (protocol, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await protocol.rpc_info()
        assert server.paths == ["/v1/models"]
        release.set()
        assert (await protocol.rpc_info()).cards[0].id == "gpt-4o-mini"
        # One request by the detection, one by the protocol.
        assert server.paths.count("/v1/models") <= 2


async def test_closed_during_detection() -> None:
    """Closing the protocol cancels the detection, and can be done twice."""
    requested = asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        requested.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving({"*": never}) as server:
        protocol = UpstreamProtocol(NodeSpec(url=server.url))
        check = asyncio.create_task(protocol.rpc_info())
        await requested.wait()
        await protocol.aclose()
        await protocol.aclose()
        with pytest.raises(asyncio.CancelledError):
            await check


def test_timeouts_of_the_node() -> None:
    """Timeouts in the node's settings become the protocol's timeouts."""
    own = UpstreamProtocol(NodeSpec(url="http://a", inter_token_timeout=3.0)).timeouts
    assert (own.first_token, own.inter_token, own.attempt) == (None, 3.0, None)


async def test_real_llama_server() -> None:
    """A real llama-server is detected, and used on the token lane with the tokenizer of its model file."""
    with llama_server(slots=1) as running:
        async with upstream(NodeSpec(url=running.url)) as (protocol, lines):
            info = await protocol.rpc_info()
    assert info.cards[0].lane == "token"
    assert lines[0].startswith(f"{running.url}: llama-server ")
    assert lines[0].endswith(f"serves {info.cards[0].id}, token lane")


def test_all_calls_are_passed_on() -> None:
    """A detected node passes on every call of a protocol, also those that only some nodes support."""
    calls = {name for name in vars(Protocol) if name.startswith("rpc_")}
    assert calls <= vars(UpstreamProtocol).keys()
