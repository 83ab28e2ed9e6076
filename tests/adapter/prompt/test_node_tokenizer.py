"""A model whose node tokenizes, behind the gateway: all endpoints, failover and what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from subnet.errors import InvalidRequest, NodeError, NodeLost
from subnet.node_info import Capabilities, TokenizerArtefact, digest
from subnet.protocols.mock import BYTE_LEVEL, MockProtocol
from subnet.tensors import TokenIds, token_ids
from tests.fakes import ASK, PROMPT, gateway

BYTES = TokenizerArtefact.from_bytes(BYTE_LEVEL)
ON_NODE = TokenizerArtefact(pieces=BYTES.pieces, control=BYTES.control, on_node=True).to_bytes()


class TokenizingNode(MockProtocol):
    """Scripted node that tokenizes texts to their bytes, or raises `fault`. `asked` are the texts of each call."""

    def __init__(self, answer: str = "Hi", fault: Exception | None = None, **options: Any) -> None:
        capabilities = Capabilities(resume="exact", embeddings=True)
        super().__init__([*answer.encode()], artefact=ON_NODE, capabilities=capabilities, **options)
        self.asked: list[Sequence[str]] = []
        self._fault = fault

    async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
        assert sha256 == digest(ON_NODE)
        self.asked.append(list(texts))
        if self._fault is not None:
            raise self._fault
        return [token_ids([*text.encode()]) for text in texts]


def _bytes_and_ends(text: str) -> list[int]:
    first, *others = (list(part.encode()) for part in text.split("<|end|>"))
    return first + [token for part in others for token in (256, *part)]


async def ask(path: str, body: dict[str, Any], *nodes: MockProtocol) -> httpx.Response:
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as client:
        return await client.post(path, json={"model": "mock"} | body)


async def test_an_answer() -> None:
    """The node tokenizes the prompt of a conversation, and the answer is as with a tokenizer of the gateway's own."""
    node = TokenizingNode()
    answer = (await ask("/v1/chat/completions", ASK, node)).json()
    assert answer["choices"][0]["message"]["content"] == "Hi"
    assert answer["usage"]["prompt_tokens"] == len(PROMPT)
    assert node.requests[0].prompt.data == token_ids([*PROMPT.encode()]).tobytes()
    assert [PROMPT] in node.asked


async def test_the_other_endpoints() -> None:
    """Completions, embeddings, /tokenize and /detokenize work as well, and control tokens stay the gateway's."""
    node = TokenizingNode()
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:

        async def post(path: str, **body: Any) -> Any:
            response = await client.post(path, json={"model": "mock"} | body)
            assert response.status_code == 200, response.text
            return response.json()

        assert (await post("/tokenize", prompt="H\u00f6<|end|>"))["tokens"] == [72, 0xC3, 0xB6, 256]
        assert bytes((await post("/tokenize", messages=ASK["messages"]))["tokens"]).decode() == PROMPT
        assert (await post("/detokenize", tokens=[72, 0xC3, 0xB6]))["prompt"] == "H\u00f6"
        completion = await post("/v1/completions", prompt=["ab", "c"], max_tokens=1, echo=True)
        assert [choice["text"] for choice in completion["choices"]] == ["abH", "cH"]
        assert completion["usage"]["prompt_tokens"] == 3
        assert (await post("/v1/embeddings", input=["ab", "<|end|>"]))["usage"]["prompt_tokens"] == 9
        rendered = await post("/v1/chat/completions/render", messages=ASK["messages"])
        assert bytes(rendered["prompt_token_ids"]).decode() == PROMPT


async def test_another_node_tokenizes() -> None:
    """If one node fails to tokenize, another one with the same tokenizer does."""
    broken, node = TokenizingNode(fault=NodeLost("lost"), peer="a"), TokenizingNode(peer="b")
    response = await ask("/v1/chat/completions", ASK, broken, node)
    assert response.json()["choices"][0]["message"]["content"] == "Hi"
    assert broken.asked
    assert [PROMPT] in node.asked


@pytest.mark.parametrize(
    ("fault", "status", "param"),
    [(NodeError("broken"), 503, None), (InvalidRequest("The text is too long.", param="messages"), 400, "messages")],
)
async def test_no_node_tokenizes(fault: Exception, status: int, param: str | None) -> None:
    """A text that one node refuses is given to another, and refused if that does so, too; failing nodes are a 503."""
    nodes = [TokenizingNode(fault=fault, peer=peer) for peer in ("a", "b")]
    response = await ask("/v1/chat/completions", ASK, *nodes)
    assert response.status_code == status
    assert response.json()["error"]["param"] == param
    assert "too long" not in response.text
    assert [PROMPT] in nodes[1].asked


async def test_a_prompt_is_one_call_and_known_parts_are_none() -> None:
    """All parts of a prompt between control tokens are asked for at once, and only those that are not known yet."""
    node = TokenizingNode()
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        for prompt in ("a<|end|>b<|end|>a", "b<|end|>a", "a<|end|>c"):
            await client.post("/tokenize", json={"model": "mock", "prompt": prompt})
    assert [texts for texts in node.asked if len(texts[0]) == 1] == [["a", "b"], ["c"]]


async def test_a_node_that_knows_too_much() -> None:
    """If the engine takes the text of a control token in a message for that token, it is divided, and stays text."""

    class Eager(TokenizingNode):
        async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
            return [token_ids(_bytes_and_ends(text)) for text in texts]

    body = {"messages": [{"role": "user", "content": "a<|end|>b"}]}
    ids = (await ask("/tokenize", body, Eager())).json()["tokens"]
    assert bytes(ids).decode() == "User: a<|end|>b\nAssistant:"


async def test_control_tokens_in_messages_stay_text() -> None:
    """The text of a control token in a message is tokenized by the node, as text."""
    node = TokenizingNode()
    body = {"messages": [{"role": "user", "content": "a<|end|>b"}]}
    ids = (await ask("/tokenize", body, node)).json()["tokens"]
    assert bytes(ids).decode() == "User: a<|end|>b\nAssistant:"
