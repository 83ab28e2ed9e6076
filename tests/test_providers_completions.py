"""Text completions of providers behind the gateway: what the client gets, and what each provider receives."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from subnet.http.node_spec import Kind
from tests.fakes import ASK, events_of
from tests.provider import (
    CHAT,
    COMPLETIONS,
    TEXT,
    Provider,
    RecordedRequest,
    Script,
    answer,
    as_text,
    connection_reset,
    cut_off,
    error_event,
    error_response,
    event,
    events,
    json_response,
    malformed,
    pieces,
    raw,
    stalled,
    text_chunk,
    truncated,
    usage_of,
)
from tests.test_providers import OVERLOADED, gateway_to, gateway_to_nodes

PROMPT = "Count:"
GREEDY = {"temperature": 0}
OTHER = "One two six seven eight nine."


def request(**more: Any) -> dict[str, Any]:
    return {"model": "mock", "prompt": PROMPT, "max_tokens": 20, **more}


def continuing(text: str) -> Any:
    """Return a script that answers `text`, or the rest of it after a prompt that contains its beginning."""

    def respond(request: RecordedRequest) -> Script:
        delivered = request.body["prompt"].removeprefix(PROMPT)
        assert text.startswith(delivered)
        return as_text(answer(text[len(delivered) :]))

    return respond


async def complete(http: httpx.AsyncClient, stream: bool = True, **more: Any) -> tuple[int, str, str | None]:
    """Return the status, the text, and the code of the error in the response or at the end of its stream."""
    response = await http.post(COMPLETIONS, json=request(stream=stream, **more))
    if response.status_code != 200:
        return response.status_code, "", response.json()["error"]["code"]
    if not stream:
        return 200, response.json()["choices"][0]["text"], None
    *chunks, last = events_of(response.content)
    code = None if last == "[DONE]" else last["error"]["code"]
    texts = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    return 200, "".join(texts), code


@pytest.mark.parametrize("stream", [True, False])
async def test_parameters_are_passed_on(stream: bool) -> None:
    """A server gets all parameters as they came, unknown ones too, and the client gets its text, reason and usage."""
    given = request(suffix=" end", echo=True, stop=["x"], top_k=4, provider={"order": ["a"]}, user=None, stream=stream)
    provider = Provider(completions=[as_text(answer())])
    async with gateway_to(provider) as http:
        response = await http.post(COMPLETIONS, json=given | {"stream_options": {"include_usage": True}})
    (sent,) = provider.requests_to(COMPLETIONS)
    assert sent.body == {
        "model": "model",
        "prompt": PROMPT,
        "max_tokens": 20,
        "suffix": " end",
        "echo": True,
        "stop": ["x"],
        "top_k": 4,
        "provider": {"order": ["a"]},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "x-ignored-params" not in response.headers
    last = events_of(response.content)[-2] if stream else response.json()
    assert (last["model"], last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == ("mock", 7, 6)
    if not stream:
        assert last["choices"] == [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompts", [1, 2])
async def test_other_members_come_back(prompts: int, stream: bool) -> None:
    """Members of choice and response are passed on, and those of the usage if a single request made the answer."""
    last = {**text_chunk(finish="stop"), **usage_of(1, 1, cost=0.5)}
    chunks = {**text_chunk("Hi", safety={"level": 0}), "provider": "A"}, last
    given = request(prompt=["a", "b"][:prompts], stream=stream, stream_options={"include_usage": True})
    async with gateway_to(Provider(completions=[events(*chunks)])) as http:
        response = await http.post(COMPLETIONS, json=given)
    parts = events_of(response.content)[:-1] if stream else [response.json()]
    assert [part["provider"] for part in parts if "provider" in part] == ["A"] * (prompts if stream else 1)
    choices = [choice for part in parts for choice in part["choices"] if "safety" in choice]
    assert [choice["safety"] for choice in choices] == [{"level": 0}] * prompts
    assert parts[-1]["usage"].get("cost") == (0.5 if prompts == 1 else None)


@pytest.mark.parametrize("stream", [True, False])
async def test_several_prompts(stream: bool) -> None:
    """Each prompt is a request of its own; choice i of prompt p has the index p * n + i, and usages are summed."""

    def respond(request: RecordedRequest) -> Script:
        word = request.body["prompt"]
        chunks = [text_chunk(f"{word}{index}", index=index) for index in range(2)]
        return events(*chunks, *(text_chunk(finish="stop", index=index) for index in range(2)), usage_of(1, 2))

    provider = Provider(completions=[respond])
    given = request(prompt=["a", "b", "c"], n=2, stream=stream, stream_options={"include_usage": True})
    async with gateway_to(provider) as http:
        response = await http.post(COMPLETIONS, json=given)
    chunks = events_of(response.content)[:-1] if stream else [response.json()]
    texts = dict.fromkeys(range(6), "")
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        texts[choice["index"]] += choice["text"]
    assert list(texts.values()) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert chunks[-1]["usage"]["total_tokens"] == 3 * (1 + 2)
    assert [sent.body["prompt"] for sent in provider.requests_to(COMPLETIONS)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]]), (["a"], ["a"]), ("", [""])],
)
async def test_prompts_of_token_ids(prompt: Any, sent: list[Any]) -> None:
    """Token ids, and an empty prompt, are passed on as they came."""
    provider = Provider(completions=[as_text(answer())])
    async with gateway_to(provider) as http:
        response = await http.post(COMPLETIONS, json=request(prompt=prompt))
    assert [choice["text"] for choice in response.json()["choices"]] == [TEXT] * len(sent)
    assert [one.body["prompt"] for one in provider.requests_to(COMPLETIONS)] == sent


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": ["a"] * 1024, "n": 3}, "n"),
        ({"n": 0}, "n"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"stream": "yes"}, "stream"),
        ({"return_token_ids": True}, "return_token_ids"),
    ],
)
async def test_requests_that_the_gateway_refuses(fields: dict[str, Any], param: str) -> None:
    """What the gateway itself cannot handle is refused by name, and no server is asked."""
    provider = Provider(completions=[as_text(answer())])
    async with gateway_to(provider) as http:
        response = await http.post(COMPLETIONS, json=request(**fields))
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not provider.requests_to(COMPLETIONS)


@pytest.mark.parametrize("fields", [{"temperature": "hot"}, {"logprobs": 99}, {"max_tokens": -1}, {"best_of": "two"}])
@pytest.mark.parametrize("stream", [True, False])
async def test_refusals_of_the_server(fields: dict[str, Any], stream: bool) -> None:
    """The server judges all other parameters: its refusal has its own status, type, param and code."""
    refusal = error_response(422, "no good", type="BadRequestError", param="temperature", code="bad")
    first, second = Provider(completions=[refusal]), Provider(completions=[refusal])
    async with gateway_to(first, second) as http:
        response = await http.post(COMPLETIONS, json=request(stream=stream, **fields))
    assert response.status_code == 422
    assert response.json()["error"] == {
        "message": "no good",
        "type": "BadRequestError",
        "param": "temperature",
        "code": "bad",
    }
    assert len(first.requests_to(COMPLETIONS) + second.requests_to(COMPLETIONS)) == 1


async def test_best_of() -> None:
    """A server that picks the best of several choices is not asked to stream them."""
    whole = json_response({**text_chunk("best", "stop"), **usage_of(1, 9)})
    provider = Provider(completions=[whole])
    async with gateway_to(provider) as http:
        assert await complete(http, stream=False, best_of=3) == (200, "best", None)
    body = provider.requests_to(COMPLETIONS)[0].body
    assert (body["best_of"], body["stream"], "stream_options" in body) == (3, False, False)


@pytest.mark.parametrize("stream", [True, False])
async def test_other_members_of_a_choice(stream: bool) -> None:
    """Members of a choice that the gateway does not make itself reach the client, and so does a content filter."""
    last = text_chunk(finish="content_filter", stop_reason="</s>", prompt_logprobs=[None, {"1": {"logprob": -1}}])
    provider = Provider(completions=[events(text_chunk("Hi", stop_reason=None), last)])
    async with gateway_to(provider) as http:
        response = await http.post(COMPLETIONS, json=request(stream=stream))
    chunks = events_of(response.content)[:-1] if stream else [response.json()]
    choice: dict[str, Any] = {}
    for chunk in chunks:
        choice |= {name: value for name, value in chunk["choices"][0].items() if value not in (None, "")}
    assert choice["stop_reason"] == "</s>"
    assert choice["prompt_logprobs"] == [None, {"1": {"logprob": -1}}]
    assert choice["finish_reason"] == "content_filter"


FAULTS = {
    "cut off": cut_off(3),
    "without an end": truncated(3),
    "stalled": stalled(3),
    "error event": error_event(3, OVERLOADED),
    "refused connection": connection_reset(),
    "HTML": raw("<html>", headers={"content-type": "text/html"}),
    "error with status 200": json_response({"error": {"message": "engine dead", "type": "server_error"}}),
    "overloaded": error_response(529, "busy"),
    "429": error_response(429, "slow down", retry_after=60),
    "500": error_response(500, "oops"),
    "malformed": malformed(3),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fields", [GREEDY, {"seed": 7}, {}, GREEDY | {"echo": True}], ids=repr)
async def test_faults(fault: str, stream: bool, fields: dict[str, Any]) -> None:
    """Whatever happens to one provider, the client gets the whole text once from another: repeated if it is greedy or
    has a seed, otherwise continued.
    """
    first = Provider(completions=[as_text(FAULTS[fault])])
    second = Provider(completions=[as_text(answer()) if fields else continuing(TEXT)])
    async with gateway_to(first, second) as http:
        assert await complete(http, stream, **fields) == (200, TEXT, None)
        assert await complete(http, stream, **fields) == (200, TEXT, None)
    assert second.requests_to(COMPLETIONS)


async def test_continuation() -> None:
    """An answer that no server repeats is continued: the prompt with the text so far, and the remaining tokens."""
    first, second = Provider(completions=[as_text(cut_off(3))]), Provider(completions=[continuing(TEXT)])
    async with gateway_to(first, second, policy="sticky") as http:
        for number in range(8):
            assert await complete(http, user=str(number)) == (200, TEXT, None)
    continued = [one.body for one in second.requests_to(COMPLETIONS) if one.body["prompt"] != PROMPT]
    assert continued
    assert all((one["prompt"], one["max_tokens"]) == (f"{PROMPT}One two three", 17) for one in continued)


@pytest.mark.parametrize(
    "fields", [{"echo": True}, {"suffix": "x"}, {"prompt": [1, 2]}, {"logprobs": 0}, {"max_tokens": None}], ids=repr
)
async def test_answers_that_cannot_be_continued(fields: dict[str, Any]) -> None:
    """Where the end of the prompt matters, another answer is an error if a part was sent; otherwise it is restarted."""
    different = as_text(answer(OTHER))
    first, second = Provider(completions=[as_text(cut_off(3))]), Provider(completions=[different])
    async with gateway_to(first, second) as http:
        results = [await complete(http, **fields) for _ in range(2)]
        assert {text for _, text, code in results if code is None} <= {OTHER}
        assert (200, "One two three", "node_failed") in results
        first.set_scripts(as_text(cut_off(3)), path=COMPLETIONS)
        assert [await complete(http, stream=False, **fields) for _ in range(2)] == [(200, OTHER, None)] * 2


async def test_echoed_tokens_do_not_count_as_generated() -> None:
    """An answer cut in the middle is not taken for complete because its echoed prompt has many tokens."""
    tokens = {"tokens": [" a"] * 30, "token_logprobs": [None, *[-1.0] * 29], "top_logprobs": None}
    echoed = text_chunk(" a" * 30, logprobs=tokens | {"text_offset": list(range(0, 60, 2))})
    more = text_chunk("One", logprobs={"tokens": ["One"], "token_logprobs": [-0.5], "text_offset": [60]})
    cut, whole = Script([*events(echoed, done=False).steps]), events(echoed, more, text_chunk(finish="length"))
    first, second = Provider(completions=[cut]), Provider(completions=[whole])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            result = await complete(http, echo=True, logprobs=1, temperature=0, max_tokens=1)
            assert result == (200, " a" * 30 + "One", None)


async def test_own_seed() -> None:
    """A server that repeats itself gets a seed of the gateway's own, so that even echoed answers can be resumed."""
    first, second = Provider(completions=[as_text(cut_off(3))]), Provider(completions=[as_text(answer())])
    async with gateway_to_nodes((first, {"seeds": True}), (second, {"seeds": True})) as http:
        for _ in range(2):
            assert await complete(http, echo=True) == (200, TEXT, None)
    begun, finished = ({one.body["seed"] for one in node.requests_to(COMPLETIONS)} for node in (first, second))
    assert begun
    assert begun <= finished
    assert len(finished) == 2


async def test_one_of_several_prompts_is_resumed() -> None:
    """A fault of one prompt's answer does not show in those of the others."""

    def respond(request: RecordedRequest) -> Script:
        return as_text(cut_off(2) if request.body["prompt"] == "b" else answer())

    first, second = Provider(completions=[respond]), Provider(completions=[as_text(answer())])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            response = await http.post(COMPLETIONS, json=request(prompt=["a", "b", "c"], **GREEDY))
            assert [choice["text"] for choice in response.json()["choices"]] == [TEXT] * 3
            assert response.json()["usage"]["prompt_tokens"] == 21


WHOLE: dict[str, list[Any]] = {
    "tokens": ["Hi", " bytes:\\xe2", "\u2026"],
    "token_logprobs": [None, -0.5, -9999.0],
    "top_logprobs": [None, {" bytes:\\xe2": -0.5, " x": -1.5}, {"\u2026": -9999.0}],
    "text_offset": [0, 2, 13],
}


def logprobs_of(part: slice) -> dict[str, Any]:
    return {name: values[part] for name, values in WHOLE.items()}


@pytest.mark.parametrize("stream", [True, False])
async def test_logprobs(stream: bool) -> None:
    """Logprobs keep OpenAI's older form, with a null for the first token of an echoed prompt; none is lost or doubled
    by a failover.
    """
    chunks = [
        text_chunk(text, logprobs=logprobs_of(slice(i, i + 1))) for i, text in enumerate(["Hi", " bad", "\u2026"])
    ]
    cut = Script([event(chunk) for chunk in chunks[:2]])
    first = Provider(completions=[cut])
    second = Provider(completions=[events(*chunks, text_chunk(finish="stop"))])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            response = await http.post(COMPLETIONS, json=request(logprobs=1, echo=True, stream=stream, **GREEDY))
            parts = events_of(response.content)[:-1] if stream else [response.json()]
            found = [part["choices"][0]["logprobs"] for part in parts if part["choices"][0]["logprobs"]]
            joined = {name: [value for one in found for value in one[name]] for name in WHOLE}
            assert joined == WHOLE


async def test_logprobs_as_in_chat_completions() -> None:
    """Logprobs in the form of llama-server and Ollama reach the client in OpenAI's older form."""
    top = [{"token": " b", "logprob": -2.0}]
    content = [
        {"token": "a", "logprob": -0.25, "bytes": [97], "top_logprobs": []},
        {"token": " \ufffd", "logprob": -0.5, "bytes": [32, 226], "top_logprobs": top},
    ]
    provider = Provider(
        completions=[events(text_chunk("a b", logprobs={"content": content}), text_chunk(finish="stop"))]
    )
    async with gateway_to(provider) as http:
        choice = (await http.post(COMPLETIONS, json=request(logprobs=1))).json()["choices"][0]
    assert choice["logprobs"] == {
        "tokens": ["a", "bytes: \\xe2".replace(" ", "\\x20")],
        "token_logprobs": [-0.25, -0.5],
        "top_logprobs": [{"a": -0.25}, {" b": -2.0, "bytes:\\x20\\xe2": -0.5}],
        "text_offset": [0, 1],
    }


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a"], "token_logprobs": []},
        {"tokens": [1], "token_logprobs": [-1.0]},
        {"tokens": "a", "token_logprobs": [-1.0]},
        {"tokens": ["a"], "token_logprobs": ["x"]},
        {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": "x"}]},
    ],
)
async def test_malformed_logprobs(logprobs: Any) -> None:
    """An answer with malformed logprobs is requested from another server."""
    first = Provider(completions=[events(text_chunk("One", logprobs=logprobs), text_chunk(finish="stop"))])
    second = Provider(completions=[as_text(answer())])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            assert await complete(http, stream=False, logprobs=1) == (200, TEXT, None)


NO_ENDPOINT = [
    error_response(404, "Unknown request URL: POST /v1/completions.", code="unknown_url"),
    raw("404 page not found", status=404, headers={"content-type": "text/plain"}),
    json_response({"detail": "Not Found"}, 404),
    json_response({"detail": "Method Not Allowed"}, 405),
    error_response(501, "This server does not support it.", type="not_supported_error"),
    error_response(404, "This is a chat model and not supported in the v1/completions endpoint.", param="model"),
]


@pytest.mark.parametrize("missing", NO_ENDPOINT, ids=lambda script: str(script.steps[0][:30]))
async def test_server_without_the_endpoint(missing: Script) -> None:
    """A server without text completions is not asked for them again, and stays healthy for chat; another one is."""
    first, second = Provider(completions=[missing]), Provider(completions=[as_text(answer())])
    async with gateway_to(first, second) as http:
        for _ in range(4):
            assert await complete(http) == (200, TEXT, None)
        assert {row["state"] for row in (await http.get("/nodes")).json()["nodes"]} == {"healthy"}
        for _ in range(2):
            assert (await http.post(CHAT, json=ASK)).status_code == 200
    assert len(first.requests_to(COMPLETIONS)) == 1
    assert len(first.chat_requests) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_no_server_with_the_endpoint(stream: bool) -> None:
    """If no server of a model has text completions, the error names the endpoint and the model, and no address."""
    first, second = Provider(), Provider()
    async with gateway_to(first, second) as http:
        for _ in range(3):
            response = await http.post(COMPLETIONS, json=request(stream=stream))
            assert response.status_code == 400
            assert response.json()["error"] == {
                "message": "The model 'mock' does not support /v1/completions.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "unsupported_model",
            }
        assert (await http.post(CHAT, json=ASK)).status_code == 200
    assert len(first.requests_to(COMPLETIONS)) == len(second.requests_to(COMPLETIONS)) == 1


async def test_the_server_with_the_endpoint_is_unreachable() -> None:
    """While the only server that may have the endpoint is unreachable, the error is temporary."""
    first, second = Provider(), Provider(completions=[as_text(answer())])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            assert await complete(http) == (200, TEXT, None)
        await second.stop()
        statuses = [(await complete(http))[0] for _ in range(4)]
    assert set(statuses) == {503}


async def test_fallback_has_the_endpoint() -> None:
    """A fallback model is asked if the servers of the model do not have the endpoint."""
    first, second = Provider(), Provider(completions=[as_text(answer())])
    async with gateway_to(first, second, models=["mock", "other"], fallbacks={"mock": ["other"]}) as http:
        for stream in (True, False):
            assert await complete(http, stream) == (200, TEXT, None)
        response = await http.post(COMPLETIONS, json=request(prompt=[1, 2]))
        assert response.json()["error"]["code"] == "unsupported_model"


async def test_rate_limits() -> None:
    """If all servers rate-limit the gateway, the client gets a 429."""
    limited = [error_response(429, "slow down", retry_after=60)]
    async with gateway_to(Provider(completions=limited), Provider(completions=limited)) as http:
        assert await complete(http) == (429, "", "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        ("ollama", {"echo": True}, "echo"),
        ("ollama", {"best_of": 2}, "best_of"),
        ("llama-server", {"guided_regex": "a"}, "guided_regex"),
        ("llama-server", {"suffix": "a"}, "suffix"),
        ("sglang", {"best_of": 2}, "best_of"),
    ],
)
async def test_parameters_that_a_server_would_drop(kind: Kind, fields: dict[str, Any], param: str) -> None:
    """A parameter that the type of server is known to ignore is refused by name."""
    provider = Provider(completions=[as_text(answer())])
    async with gateway_to_nodes((provider, {"kind": kind})) as http:
        response = await http.post(COMPLETIONS, json=request(**fields))
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        accepted: dict[str, Any] = {"seed": 1, "suffix": "", "logprobs": 0, "echo": False, "best_of": 1}
        assert await complete(http, **accepted) == (200, TEXT, None)
    assert provider.requests_to(COMPLETIONS)[0].body["logprobs"] == 0


async def test_parameters_of_text_completions_only() -> None:
    """What a server ignores in chat completions only is passed on in text completions."""
    provider = Provider(completions=[as_text(answer())])
    async with gateway_to_nodes((provider, {"kind": "sglang"})) as http:
        assert await complete(http, echo=True) == (200, TEXT, None)
    assert provider.requests_to(COMPLETIONS)[0].body["echo"] is True


async def test_server_without_n() -> None:
    """From a server that makes one choice per request, several are requested one by one, with different seeds."""
    provider = Provider(completions=[error_response(400, "only one", param="n"), as_text(answer())])
    async with gateway_to(provider) as http:
        response = await http.post(COMPLETIONS, json=request(n=3, seed=5))
    assert [choice["text"] for choice in response.json()["choices"]] == [TEXT] * 3
    sent = [one.body for one in provider.requests_to(COMPLETIONS)]
    assert [(one.get("n"), one["seed"]) for one in sent] == [(3, 5), (None, 5), (None, 6), (None, 7)]


async def test_halves_of_characters() -> None:
    """The halves of a surrogate pair in two chunks become one character."""
    chunks = [r'{"choices": [{"index": 0, "text": "a\ud83d"}]}', r'{"choices": [{"index": 0, "text": "\ude00b"}]}']
    script = Script([*(event(chunk) for chunk in chunks), event(text_chunk(finish="stop")), event("[DONE]")])
    async with gateway_to(Provider(completions=[script])) as http:
        assert await complete(http) == (200, "a\U0001f600b", None)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        ["Hi"],
        [{"type": "thinking", "thinking": "Hm"}],
        [{"type": "refusal", "refusal": "No."}],
        {"text": "Hi"},
        1,
        False,
    ],
    ids=repr,
)
async def test_text_that_is_not_a_string(text: Any, stream: bool) -> None:
    """An answer whose text is not a string, or null, is requested from another server."""
    chunk = text_chunk()
    chunk["choices"][0]["text"] = text
    first, second = Provider(completions=[events(chunk)]), Provider(completions=[as_text(answer())])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            assert await complete(http, stream) == (200, TEXT, None)
    assert first.requests_to(COMPLETIONS)


@pytest.mark.parametrize("stream", [True, False])
async def test_everything_in_one_chunk(stream: bool) -> None:
    """A chunk may have text, logprobs and the finish reason; offsets may count the prompt, as OpenAI's do, and tokens
    may be ahead of their text, as vLLM's are while it waits for a stop string.
    """
    texts = ["ab", "c d", "e!"]
    logprobs: dict[str, list[Any]] = {
        "tokens": ["abc", " de", "!"],
        "token_logprobs": [-1.0] * 3,
        "text_offset": [101, 104, 107],
    }
    parts = [{name: values[i : i + 1] for name, values in logprobs.items()} for i in range(3)]
    chunks = [text_chunk(text, logprobs=part) for text, part in zip(texts, parts, strict=True)]
    chunks[-1]["choices"][0]["finish_reason"] = "length"
    first = Provider(completions=[Script([event(chunk) for chunk in chunks[:2]])])
    second = Provider(completions=[events(*chunks, done=False)])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            response = await http.post(COMPLETIONS, json=request(logprobs=0, stop=["\n\n"], stream=stream, **GREEDY))
            found = events_of(response.content)[:-1] if stream else [response.json()]
            choices = [chunk["choices"][0] for chunk in found]
            assert "".join(choice["text"] for choice in choices) == "abc de!"
            assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]
            told = [choice["logprobs"] for choice in choices if choice["logprobs"]]
            assert {name: [one for part in told for one in part[name]] for name in logprobs} == logprobs
            assert [one for part in told for one in part["top_logprobs"]] == [{"abc": -1}, {" de": -1}, {"!": -1}]


@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("logprobs", [True, False])
async def test_logprobs_as_a_boolean(echo: bool, logprobs: bool) -> None:
    """A boolean is passed on, too; a server that sends no logprobs shows in a null, not in empty lists."""
    provider = Provider(completions=[as_text(answer())])
    async with gateway_to(provider) as http:
        for stream in (True, False):
            response = await http.post(COMPLETIONS, json=request(echo=echo, logprobs=logprobs, stream=stream))
            assert response.status_code == 200
        assert response.json()["choices"][0]["logprobs"] is None
    assert [one.body["logprobs"] for one in provider.requests_to(COMPLETIONS)] == [logprobs] * 2


async def test_more_prompts_than_slots() -> None:
    """Prompts that exceed the capacity of the servers wait for it; each is answered once, in its place."""

    def respond(request: RecordedRequest) -> Script:
        return as_text(answer(f"say {request.body['prompt'][0]}"))

    first, second = Provider(completions=[respond]), Provider(completions=[respond])
    async with gateway_to_nodes((first, {"concurrency": 2}), (second, {"concurrency": 2})) as http:
        response = await http.post(COMPLETIONS, json=request(prompt=[[number] for number in range(54)]))
    assert [choice["text"] for choice in response.json()["choices"]] == [f"say {number}" for number in range(54)]
    assert response.json()["usage"]["completion_tokens"] == 2 * 54


async def test_openai_client() -> None:
    """OpenAI's client receives one text although its server is lost in the middle."""
    first, second = Provider(completions=[as_text(cut_off(3))]), Provider(completions=[as_text(answer())])
    async with gateway_to(first, second) as http:
        client = AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="-", max_retries=0)
        async with client:
            for _ in range(2):
                stream = await client.completions.create(
                    model="mock", prompt=PROMPT, max_tokens=20, seed=1, stream=True
                )
                said = [chunk.choices[0].text async for chunk in stream]
                assert [text for text in said if text] == pieces(TEXT)
                whole = await client.completions.create(model="mock", prompt=[PROMPT] * 2, max_tokens=20, seed=1)
                assert [choice.text for choice in whole.choices] == [TEXT] * 2
