"""vLLM's own responses, recorded from a run, on both lanes; they differ from those that its documentation shows."""

from __future__ import annotations

import pytest

from subnet.engines.vllm import VllmEngine
from subnet.errors import ContextLengthExceeded, InvalidRequest, SubnetError
from subnet.generation import Grammar
from subnet.http.node_spec import NodeSpec
from subnet.tensors import token_ids
from tests.chat_node import chat, node
from tests.real_engine import run
from tests.recorded import Line, RecordedServer, recorded

NAME = "vllm-0.32.0"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TEXT = "The capital of France is Paris."


def active(server: RecordedServer, name: str) -> Line:
    server.active = {name}
    return server.line(name)


async def test_an_answer_on_the_token_lane() -> None:
    """The request is the one that was recorded, and tokens, logprobs and cached tokens are read from the response."""
    async with recorded(NAME) as server, VllmEngine(NodeSpec(url=server.url)) as engine:
        line = active(server, "greedy")
        prompt = token_ids(line.request["prompt"])
        tokens, deltas = await run(engine, prompt, temperature=0.0, max_tokens=20, logprobs=2)
        assert server.requests == [line.request]
    logprobs = [entry for delta in deltas for entry in delta.logprobs or []]
    assert tokens[:2] == [504, 3575]
    assert (len(tokens), len(logprobs)) == (7, 7)
    assert (deltas[-1].finish_reason, deltas[-1].cached_tokens) == ("stop", 0)
    assert -2 < logprobs[0].logprob < -1.5
    assert logprobs[0].top_logprobs[0] == logprobs[0].logprob


@pytest.mark.parametrize(("name", "error"), [("in-stream 400", InvalidRequest), ("too long", ContextLengthExceeded)])
async def test_errors_on_the_token_lane(name: str, error: type[SubnetError]) -> None:
    """A refusal with status 200, inside the stream, is one as well as a refusal before it."""
    async with recorded(NAME) as server, VllmEngine(NodeSpec(url=server.url)) as engine:
        active(server, name)
        with pytest.raises(error):
            await run(engine, token_ids([1, 2, 3]), grammar=Grammar("json_schema", '{"type":"nonsense"}'))


async def test_an_answer_on_the_chat_lane() -> None:
    """Text, logprobs with the end token's, finish reason and usage are read from the response."""
    async with recorded(NAME) as server, node(server.url, kind="vllm") as protocol:
        line = active(server, "chat")
        body = {name: line.request[name] for name in ("temperature", "logprobs", "top_logprobs", "max_tokens")}
        answer = await chat(protocol, model="smol", messages=QUESTION, **body)
        assert server.requests == [line.request]
    assert (answer.text(), answer.finishes()) == (TEXT, ["stop"])
    assert len(answer.logprobs()) == 8
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.cached_tokens) == (37, 8, 0)


async def test_a_call_on_the_chat_lane() -> None:
    """A forced call is read, of which vLLM sends the arguments in parts."""
    async with recorded(NAME) as server, node(server.url, kind="vllm") as protocol:
        line = active(server, "chat call")
        body = {name: line.request[name] for name in ("temperature", "max_tokens", "tool_choice", "tools")}
        answer = await chat(protocol, model="smol", messages=QUESTION, **body)
    assert [name for name, _ in answer.calls()] == ["weather"]
    assert answer.finishes() == ["tool_calls"]


@pytest.mark.parametrize(
    ("name", "error"), [("chat limit", ContextLengthExceeded), ("chat in-stream 400", InvalidRequest)]
)
async def test_errors_on_the_chat_lane(name: str, error: type[SubnetError]) -> None:
    """A limit beyond the context is the error for that, and a refusal in the stream is one."""
    async with recorded(NAME) as server, node(server.url, kind="vllm") as protocol:
        active(server, name)
        with pytest.raises(error):
            await chat(protocol, model="smol", messages=QUESTION)


async def test_the_model_list() -> None:
    """A model list with permissions, which are new in each response, does not look like another server each time."""
    async with recorded(NAME) as server, VllmEngine(NodeSpec(url=server.url)) as engine:
        assert (engine.card.id, engine.card.context_length) == ("smol", 1024)
        assert await engine._fetch_report() == await engine._fetch_report()
