"""JSON of responses: which of OpenAI's keys are present, absent or null."""

from __future__ import annotations

from typing import Any

import msgspec
import openai.types
import openai.types.chat
import pytest
from pydantic import BaseModel

from adapter.api.chat.response import (
    AnswerMessage,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    ChunkDelta,
    FunctionDelta,
    ToolCallDelta,
)
from adapter.api.common.logprob_types import Logprobs, TextLogprobs
from adapter.api.completions.types import TextChoice, TextCompletion
from adapter.api.conversation.message_types import CalledFunction, ToolCall
from adapter.api.embeddings.types import EmbeddingList, EmbeddingObject, EmbeddingUsage
from adapter.api.tokenize.types import Tokenized
from adapter.decode.token_logprobs import TokenLogprob, TopLogprob
from adapter.decode.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from tests import published

HEAD: dict[str, Any] = {"id": "x-1", "created": 7, "model": "m", "system_fingerprint": "fp_1"}
USAGE = Usage(
    prompt_tokens=2,
    completion_tokens=3,
    total_tokens=5,
    prompt_tokens_details=PromptTokensDetails(1),
    completion_tokens_details=CompletionTokensDetails(2),
)
CALL = ToolCall(id="call_1", function=CalledFunction("add", '{"a": 1}'))
CALL_JSON = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
LOGPROBS = Logprobs(
    content=[
        TokenLogprob(
            token="\ufffd",
            logprob=-0.5,
            bytes=[240, 159],
            top_logprobs=[TopLogprob(token="a", logprob=-0.25, bytes=[97])],
        )
    ]
)
LOGPROBS_JSON = {
    "content": [
        {
            "token": "\ufffd",
            "logprob": -0.5,
            "bytes": [240, 159],
            "top_logprobs": [{"token": "a", "logprob": -0.25, "bytes": [97]}],
        }
    ],
    "refusal": None,
}
TEXT_LOGPROBS = TextLogprobs(
    tokens=["a", "b"], token_logprobs=[None, -1.0], top_logprobs=[None, {"b": -1.0}], text_offset=[0, 1]
)


def as_json(answer: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(answer))


def whole(message: AnswerMessage, **fields: Any) -> ChatCompletion:
    choice = Choice(index=0, message=message, **({"finish_reason": "stop"} | fields))
    return ChatCompletion(choices=[choice], usage=USAGE, **HEAD)


def chunk(delta: ChunkDelta, **fields: Any) -> ChatCompletionChunk:
    return ChatCompletionChunk(choices=[ChunkChoice(index=0, delta=delta, **fields)], **HEAD)


def text(**fields: Any) -> TextCompletion:
    choice = TextChoice(index=0, text="ab", finish_reason="stop", **fields)
    return TextCompletion(choices=[choice], usage=USAGE, **HEAD)


BEGUN = {"index": 0, **CALL_JSON, "function": {"name": "add", "arguments": ""}}
CALLING = ToolCallDelta(index=0, id="call_1", type="function", function=FunctionDelta(name="add", arguments=""))
ARGUMENTS = ToolCallDelta(index=0, function=FunctionDelta(arguments='{"a"'))

ANSWERS = [
    whole(AnswerMessage(content="Hi")),
    whole(AnswerMessage(content="Hi", reasoning_content="Hm.", reasoning="Hm."), finish_reason="length"),
    whole(AnswerMessage(content=None, tool_calls=[CALL]), finish_reason="tool_calls"),
    whole(AnswerMessage(content="Hi"), logprobs=LOGPROBS, token_ids=[1]),
]
CHUNKS = [
    chunk(ChunkDelta(role="assistant", content="", refusal=None)),
    chunk(ChunkDelta(content="Hi"), logprobs=LOGPROBS, token_ids=[1]),
    chunk(ChunkDelta(reasoning_content="Hm.")),
    chunk(ChunkDelta(role="assistant", content=None, tool_calls=[CALLING])),
    chunk(ChunkDelta(tool_calls=[ARGUMENTS])),
    chunk(ChunkDelta(), finish_reason="tool_calls"),
    ChatCompletionChunk(choices=[], usage=USAGE, **HEAD),
    msgspec.structs.replace(chunk(ChunkDelta(content="Hi")), usage=None),
]
TEXTS = [text(), text(token_ids=[1], prompt_token_ids=[2])]
EMBEDDINGS = EmbeddingList(
    data=[EmbeddingObject(index=0, embedding=[0.5, -1.0])],
    model="m",
    usage=EmbeddingUsage(prompt_tokens=2, total_tokens=2),
)
SHOWN: list[tuple[object, type[BaseModel], str]] = [
    *((one, openai.types.chat.ChatCompletion, "CreateChatCompletionResponse") for one in ANSWERS),
    *((one, openai.types.chat.ChatCompletionChunk, "CreateChatCompletionStreamResponse") for one in CHUNKS),
    *((one, openai.types.Completion, "CreateCompletionResponse") for one in TEXTS),
    (EMBEDDINGS, openai.types.CreateEmbeddingResponse, "CreateEmbeddingResponse"),
]


@pytest.mark.parametrize(("answer", "theirs", "schema"), SHOWN)
def test_openai_types_parse_every_response(answer: object, theirs: type[BaseModel], schema: str) -> None:
    """OpenAI's own types parse every kind of response without losing or adding a field."""
    data = as_json(answer)
    read = theirs.model_validate(data)
    assert read.model_dump(mode="json", exclude_unset=True) == data


@pytest.mark.parametrize(("answer", "theirs", "schema"), SHOWN)
def test_responses_match_the_published_description(answer: object, theirs: type[BaseModel], schema: str) -> None:
    """Every kind of response matches OpenAI's published description."""
    published.check(schema, as_json(answer))


def test_message() -> None:
    """In a message without calls or logprobs, `refusal` and `logprobs` are null, and other empty fields are absent."""
    assert as_json(ANSWERS[0]) == {
        "object": "chat.completion",
        **HEAD,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 2,
            "completion_tokens": 3,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }


def test_calls() -> None:
    """A message with tool calls has null content."""
    (choice,) = as_json(ANSWERS[2])["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL_JSON]}
    assert choice["finish_reason"] == "tool_calls"


def test_logprobs() -> None:
    """Each logprob entry has its token, its bytes and the likeliest alternatives."""
    assert as_json(ANSWERS[3])["choices"][0]["logprobs"] == LOGPROBS_JSON
    assert as_json(CHUNKS[1])["choices"][0]["logprobs"] == LOGPROBS_JSON
    assert as_json(Logprobs(content=None)) == {"content": None, "refusal": None}


@pytest.mark.parametrize(
    ("number", "delta"),
    [
        (0, {"role": "assistant", "content": "", "refusal": None}),
        (1, {"content": "Hi"}),
        (2, {"reasoning_content": "Hm."}),
        (3, {"role": "assistant", "content": None, "tool_calls": [BEGUN]}),
        (4, {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
        (5, {}),
    ],
)
def test_deltas(number: int, delta: dict[str, Any]) -> None:
    """A delta has only the fields that are new, plus the null and empty ones that OpenAI sends."""
    found = as_json(CHUNKS[number])
    assert found["choices"][0]["delta"] == delta
    assert "usage" not in found


def test_usage_in_chunks() -> None:
    """With include_usage, usage is null in all chunks but the last, which has no choices."""
    assert as_json(CHUNKS[7])["usage"] is None
    assert (as_json(CHUNKS[6])["choices"], as_json(CHUNKS[6])["usage"]["total_tokens"]) == ([], 5)


def test_text() -> None:
    """A text completion has OpenAI's keys, whole and as a stream event."""
    (choice,) = as_json(text(logprobs=TEXT_LOGPROBS))["choices"]
    assert choice == {
        "index": 0,
        "text": "ab",
        "logprobs": {
            "tokens": ["a", "b"],
            "token_logprobs": [None, -1.0],
            "top_logprobs": [None, {"b": -1.0}],
            "text_offset": [0, 1],
        },
        "finish_reason": "stop",
    }
    event = TextCompletion(choices=[TextChoice(index=0, text="a", finish_reason=None)], **HEAD)
    assert as_json(event)["choices"] == [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}]
    assert "usage" not in as_json(event)


def test_embedding_as_base64() -> None:
    """A base64 embedding is a string in place of the list of numbers."""
    assert as_json(EmbeddingObject(index=1, embedding="AAAAPw==")) == {
        "object": "embedding",
        "index": 1,
        "embedding": "AAAAPw==",
    }


def test_tokenized() -> None:
    """A /tokenize response has vLLM's keys, and the model."""
    assert as_json(Tokenized(model="m", count=1, max_model_len=8, tokens=[5])) == {
        "model": "m",
        "count": 1,
        "max_model_len": 8,
        "tokens": [5],
        "token_strs": None,
    }
