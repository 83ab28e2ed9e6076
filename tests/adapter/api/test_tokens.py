"""POST /tokenize, /detokenize and /v1/chat/completions/render over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.config import Settings
from adapter.generation.model_registry import LoadedTokenizer, Model
from adapter.generation.plain_text import decode_tokens, token_offsets, tokenize_prompt
from subnet.node_info import Capabilities, ModelCard, TokenizerArtefact, digest
from subnet.protocols.mock import BYTE_LEVEL, MockProtocol
from tests.fakes import ASK, PROMPT, gateway, saying

MESSAGES: Any = ASK["messages"]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
ARTEFACT = TokenizerArtefact.from_bytes(BYTE_LEVEL)
WITH_BEGIN = TokenizerArtefact(
    pieces=[*ARTEFACT.pieces, b"<|begin|>"],
    control=[256, 257],
    pattern=ARTEFACT.pattern,
    merges=ARTEFACT.merges,
    bos_id=257,
    add_bos=True,
).to_bytes()


async def ask(path: str, *nodes: MockProtocol, settings: Any = None, **fields: Any) -> httpx.Response:
    nodes = nodes or (saying("Hi"),)
    async with gateway(*nodes, settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        return await client.post(path, json=fields)


async def tokens(*nodes: MockProtocol, **fields: Any) -> list[int]:
    response = await ask("/tokenize", *nodes, **fields)
    assert response.status_code == 200, response.text
    found: list[int] = response.json()["tokens"]
    return found


def refusal(response: httpx.Response) -> tuple[int, str | None, str | None]:
    error = response.json()["error"]
    return response.status_code, error["param"], error["code"]


async def test_tokens_of_a_prompt() -> None:
    """/tokenize responds as vLLM does, and returns token strings only if they are requested."""
    answer = (await ask("/tokenize", model="mock", prompt="Hö")).json()
    assert answer == {
        "model": "mock",
        "count": 3,
        "max_model_len": 4096,
        "tokens": [72, 0xC3, 0xB6],
        "token_strs": None,
    }
    shown = (await ask("/tokenize", prompt="Hö<|end|>", return_token_strs=True)).json()
    assert shown["token_strs"] == ["H", "\ufffd", "\ufffd", "<|end|>"]
    assert await tokens(prompt="") == []


async def test_tokens_of_messages() -> None:
    """The tokens of messages are those of the prompt for an answer, without any request to a node."""
    node = saying("Hi")
    assert bytes(await tokens(node, messages=MESSAGES)).decode() == PROMPT
    assert bytes(await tokens(messages=MESSAGES, add_generation_prompt=False)).decode() == "User: Hello\n"
    assert "add" in bytes(await tokens(messages=MESSAGES, tools=[TOOL])).decode()
    assert node.requests == []


async def test_special_tokens() -> None:
    """A prompt gets the model's BOS token unless disabled, messages only what their template has, and never two."""
    node = saying("", artefact=WITH_BEGIN)
    assert await tokens(node, prompt="a") == [257, 97]
    assert await tokens(node, prompt="<|begin|>a") == [257, 97]
    assert await tokens(node, prompt="a", add_special_tokens=False) == [97]
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    for special, count in [(None, 5), (True, 6)]:
        node = saying("", artefact=WITH_BEGIN, chat_template=template)
        assert len(await tokens(node, messages=MESSAGES, add_special_tokens=special)) == count


async def test_templates_of_clients() -> None:
    """A chat template in a request is rejected unless the operator allows it."""
    asked: dict[str, Any] = {"messages": MESSAGES, "chat_template": "x{{ messages[0].content }}"}
    assert refusal(await ask("/tokenize", **asked))[:2] == (400, "chat_template")
    node = saying("", chat_template="y")
    allowed = await ask("/tokenize", node, settings=Settings(allow_chat_template=True, access_log=False), **asked)
    assert bytes(allowed.json()["tokens"]) == b"xHello"


async def test_model_is_optional_if_there_is_one() -> None:
    """The model may be omitted only if there is just one."""
    two = [saying("", peer="a", model="a"), saying("", peer="b", model="b")]
    asked: list[tuple[str, dict[str, Any]]] = [("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [72]})]
    for path, fields in asked:
        assert refusal(await ask(path, *two, **fields)) == (400, "model", "missing_required_parameter")
        assert refusal(await ask(path, model="other", **fields)) == (404, "model", "model_not_found")
        assert (await ask(path, *two, model="b", **fields)).status_code == 200


async def test_text_of_tokens() -> None:
    """/detokenize returns text with control tokens, and a replacement character for an incomplete character."""
    answer = await ask("/detokenize", tokens=[72, 0xC3, 0xB6, 256, 0xC3])
    assert answer.json() == {"prompt": "Hö<|end|>\ufffd"}
    assert (await ask("/detokenize", tokens=[])).json() == {"prompt": ""}
    assert refusal(await ask("/detokenize", tokens=[1, 257])) == (400, "tokens[1]", "invalid_value")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": MESSAGES}, "prompt"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
                ]
            },
            "messages[0].content[0].type",
        ),
    ],
)
async def test_invalid_tokenize_requests(fields: dict[str, Any], param: str) -> None:
    """Invalid /tokenize requests are rejected with the name of the parameter."""
    assert refusal(await ask("/tokenize", **fields))[:2] == (400, param)


async def test_render() -> None:
    """/render returns the prompt as text and tokens and everything that a node would get, without any request to a
    node.
    """
    node = saying("Hi", capabilities=Capabilities(grammars=("json_schema",)))
    response = await ask("/v1/chat/completions/render", node, **ASK, stream=True, zeta=1)
    assert response.headers["x-ignored-params"] == "zeta"
    assert response.json() == {
        "model": "mock",
        "prompt": PROMPT,
        "prompt_token_ids": [*PROMPT.encode()],
        "count": len(PROMPT),
        "max_model_len": 4096,
        "max_tokens": 4096 - len(PROMPT),
        "tool_format": "hermes",
        "reasoning": None,
        "grammar": None,
    }
    formed = await ask("/v1/chat/completions/render", **ASK, response_format={"type": "json_object"}, max_tokens=7)
    assert formed.json()["grammar"]["kind"] == "json_schema"
    assert json.loads(formed.json()["grammar"]["text"])["type"] == "object"
    assert formed.json()["max_tokens"] == 7
    assert node.requests == []


async def test_render_rejects_invalid_requests() -> None:
    """/render rejects a request with the same error as /v1/chat/completions."""
    too_long: Any = [{"role": "user", "content": "x" * 5000}]
    response = await ask("/v1/chat/completions/render", model="mock", messages=too_long)
    assert refusal(response) == (400, "messages", "context_length_exceeded")


def model(artefact: bytes) -> Model:
    card = ModelCard(id="m", context_length=8, tokenizer=digest(artefact))
    return Model(card, LoadedTokenizer(card, artefact))


@pytest.mark.parametrize("artefact", [BYTE_LEVEL, WITH_BEGIN])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_offsets(artefact: bytes, text: str) -> None:
    """A token's offset is the length of the complete text before it; tokens added in front have offset 0."""
    mine = model(artefact)
    ids = tokenize_prompt(mine, text, "prompt").tolist()
    added = len(ids) - len(text.encode())
    whole = [len(text.encode()[:cut].decode(errors="ignore")) for cut in range(len(text.encode()))]
    assert token_offsets(mine, ids, text) == [0] * added + whole
    assert decode_tokens(mine, ids[added:]) == text
