"""Token lane: from a request to events, with scripted nodes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from adapter.api.chat.stream import ChunkWriter
from adapter.api.common.access_log import Record
from adapter.api.common.event_stream import event_stream
from adapter.api.common.head import Head
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.translate import generation_request
from adapter.decode.events import Event, Finished, TextDelta, Used
from adapter.errors import ModelNotFound
from adapter.generation.base import Candidate
from adapter.generation.model_registry import Model, ModelRegistry
from adapter.generation.output_options import OutputOptions
from adapter.generation.prepare import GenerationSettings, prepare
from adapter.generation.token_lane import TokenGeneration
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large
from adapter.prompt import Budget, ChatTemplate, Conversation, Prompt
from subnet import RemoteManager, SessionManager
from subnet.errors import ContextLengthExceeded, InvalidRequest, NodeLost, NoNodeAvailable
from subnet.generation import Delta, Sampling
from subnet.pool.policies.base import C, Policy, RoutingHint
from subnet.protocols.mock import BYTE_LEVEL, MockProtocol, Pause, Step
from subnet.tensors import token_ids, unpack
from subnet.wire.messages import Generate
from tests.fakes import ASK, PROMPT, QUICK, gateway, saying

CHATML = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"


@asynccontextmanager
async def subnet(*nodes: MockProtocol) -> AsyncIterator[tuple[ModelRegistry, SessionManager]]:
    async with RemoteManager(nodes) as remotes:
        await remotes.ready()
        yield ModelRegistry(remotes), SessionManager(remotes, limits=QUICK)


def request(**fields: Any) -> ChatCompletionRequest:
    return msgspec.convert({**ASK, **fields}, ChatCompletionRequest)


async def events_of(completion: TokenGeneration, sessions: SessionManager) -> list[Event]:
    events: list[Event] = []
    await completion.run(sessions, events.append)
    return events


async def answer(node: MockProtocol, **fields: Any) -> list[Event]:
    async with subnet(node) as (models, sessions):
        completion = await prepare(generation_request(request(**fields)), models)
        return await events_of(completion, sessions)


def text_of(events: list[Event], choice: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.choice == choice)


def used(events: list[Event]) -> tuple[int, int, int, int]:
    assert isinstance(events[-1], Used)
    usage = events[-1].usage
    cached = usage.prompt_tokens_details.cached_tokens
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, cached


@pytest.mark.parametrize(
    ("fields", "key"),
    [({}, None), ({"user": "u"}, "u"), ({"user": "u", "prompt_cache_key": "k"}, "k"), ({"prompt_cache_key": ""}, None)],
)
async def test_routing_hint(fields: dict[str, str], key: str | None) -> None:
    """The routing policy gets the prompt and the client's cache key or user."""
    seen: list[RoutingHint] = []

    class Only(Policy):
        def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
            seen.append(hint)
            return candidates[0]

    async with RemoteManager([saying("Hi")], policy=Only()) as remotes:
        await remotes.ready()
        completion = await prepare(generation_request(request(**fields)), ModelRegistry(remotes))
        assert text_of(await events_of(completion, SessionManager(remotes))) == "Hi"
    assert (bytes(seen[0].prompt.tolist()), seen[0].key) == (PROMPT.encode(), key)


async def test_answer() -> None:
    """An answer has a text event per token, the finish reason and the usage."""
    events = await answer(saying("Hi"))
    assert events[:3] == [TextDelta(0, "H"), TextDelta(0, "i"), Finished(0, "stop")]
    assert used(events) == (len(PROMPT), 2, len(PROMPT) + 2, 0)


async def test_request_to_the_node() -> None:
    """A node gets the prompt as tokens and as text, OpenAI's default sampling, and the rest of the context as
    max_tokens.
    """
    node = saying("Hi", context_length=100)
    await answer(node)
    (asked,) = node.requests
    assert bytes(unpack(asked.prompt).tolist()).decode() == asked.text == PROMPT
    assert (asked.sampling.temperature, asked.sampling.top_p) == (1.0, 1.0)
    assert asked.sampling.max_tokens == 100 - len(PROMPT)


async def test_sampling() -> None:
    """Sampling parameters reach the node, including zeros."""
    node = saying("Hi")
    await answer(node, temperature=0, top_p=0, seed=0, max_completion_tokens=1)
    sampling = node.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.max_tokens) == (0.0, 0.0, 0, 1)


async def test_split_characters() -> None:
    """A character split over several tokens is emitted when it is complete; an incomplete one at the end is dropped."""
    events = await answer(MockProtocol([*"ö€😀".encode(), 0xE2, 0x82]))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["ö", "€", "😀"]
    assert used(events)[1] == 11


async def test_length() -> None:
    """An answer that reaches max_tokens has the finish reason "length"."""
    events = await answer(saying("Hello"), max_tokens=2)
    assert text_of(events) == "He"
    assert Finished(0, "length") in events


async def test_stop_string() -> None:
    """A stop string is not emitted, later tokens are not counted, and the generation on the node is cancelled."""
    node = saying("one STOP two", Pause())
    events = await answer(node, stop=["ST", "never"])
    assert text_of(events) == "one "
    assert Finished(0, "stop", "ST") in events
    assert used(events)[1] == len("one ST")
    assert (node.open, node.cancelled) == (0, 1)


async def test_stop_string_within_one_delta() -> None:
    """A stop string in the middle of a delta ends the answer with "stop", whatever finish reason the delta has."""
    node = MockProtocol([Delta(0, list(b"one STOP two"), finish_reason="length")])
    events = await answer(node, stop="STOP")
    assert text_of(events) == "one "
    assert Finished(0, "stop", "STOP") in events
    assert used(events)[1] == len("one STOP")


async def test_start_of_a_stop_string_at_the_end() -> None:
    """Text held back as the start of a stop string is emitted if the answer ends without the rest."""
    events = await answer(saying("one ST"), stop="STOP")
    assert text_of(events) == "one ST"
    assert used(events)[1] == 6


async def test_cached_tokens() -> None:
    """Usage reports the cached prompt tokens once, however many choices there are."""
    assert used(await answer(MockProtocol([Delta(0, [65], cached_tokens=5)])))[3] == 5
    several = MockProtocol([Delta(0, [65], cached_tokens=5), Delta(1, [65], cached_tokens=3)])
    assert used(await answer(several, n=2))[3] == 5


async def test_cached_tokens_of_more_than_the_prompt() -> None:
    """Cached tokens are limited to the prompt, as a resuming node may also count the tokens of the answer."""
    prompt, *_, cached = used(await answer(MockProtocol([Delta(0, [65], cached_tokens=10_000)])))
    assert cached == prompt


async def test_echo() -> None:
    """With `echo`, each choice starts once with the assistant's message that is continued."""
    begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So "}]
    node = MockProtocol([Delta(index, [byte]) for byte in b"it is" for index in range(2)])
    events = await answer(
        node, messages=begun, continue_final_message=True, add_generation_prompt=False, echo=True, n=2
    )
    assert [text_of(events, index) for index in range(2)] == ["So it is", "So it is"]


async def test_usage_of_an_echo() -> None:
    """The echoed text counts as prompt tokens, not as completion tokens."""
    begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So "}]
    async with subnet(saying("it")) as (models, sessions):
        wish = request(messages=begun, continue_final_message=True, add_generation_prompt=False, echo=True)
        completion, used = await prepare(generation_request(wish), models), list[int]()
        await completion.run(sessions, lambda event: used.append(completion.usage.completion_tokens))
    assert used == [0, 1, 2, 2, 2]


async def test_an_error_in_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error in a stream sends the client an error event without details, and logs them."""

    async def fails() -> None:
        ChunkWriter(head, parts.append).emit(TextDelta(0, "Hi"))
        raise ZeroDivisionError("a detail")

    parts: list[bytes] = []
    head = Head(id="chatcmpl-1", created=7, model="mock", system_fingerprint="fp_1")
    await event_stream(fails, parts.append, lambda: bool(parts), lambda: b"", Record("", 0.0))
    assert parts[-1].startswith(b'data: {"error":')
    assert b"detail" not in parts[-1]
    assert "a detail" in caplog.text


async def test_several_choices() -> None:
    """A stop string ends only its own choice; the end of the last one cancels the generation on the node."""
    script: list[Step] = [
        Delta(0, list(b"a!")),
        Delta(1, list(b"bb")),
        Delta(0, list(b"a")),
        Delta(1, list(b"!")),
        Pause(),
    ]
    node = MockProtocol(script)
    async with subnet(node) as (models, sessions):
        model = await models.get("mock")
        completion = TokenGeneration(model, "x", token_ids([1]), Sampling(), OutputOptions(stops=("!",)), choices=2)
        events = await events_of(completion, sessions)
    assert (text_of(events, 0), text_of(events, 1)) == ("a", "bb")
    assert [event for event in events if isinstance(event, Finished)] == [
        Finished(index, "stop", "!") for index in (0, 1)
    ]
    assert used(events) == (1, 5, 6, 0)
    assert node.cancelled == 1


async def test_usage_of_a_cancelled_answer() -> None:
    """The usage of an answer that was cancelled counts the tokens delivered so far."""
    async with subnet(saying("Hello", Pause())) as (models, sessions):
        completion = await prepare(generation_request(request()), models)
        seen: list[Event] = []
        running = asyncio.create_task(completion.run(sessions, seen.append))
        while len(seen) < 5:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert completion.usage.completion_tokens == 5


@pytest.mark.parametrize(
    ("context", "fields", "numbers", "param"),
    [
        (len(PROMPT), {}, (len(PROMPT), len(PROMPT)), "messages"),
        (10, {}, (10, len(PROMPT)), "messages"),
        (10, {"max_tokens": 5}, (10, len(PROMPT)), "messages"),
        (100, {"max_tokens": 90}, (100, len(PROMPT) + 90), "max_tokens"),
        (100, {"max_completion_tokens": 90}, (100, len(PROMPT) + 90), "max_completion_tokens"),
    ],
)
async def test_context_length_exceeded(
    context: int, fields: dict[str, Any], numbers: tuple[int, int], param: str
) -> None:
    """A request that exceeds the context is rejected with both numbers and the parameter, before any node gets it."""
    node = saying("Hi", context_length=context)
    with pytest.raises(ContextLengthExceeded) as caught:
        await answer(node, **fields)
    assert all(str(number) in caught.value.message for number in numbers)
    assert caught.value.param == param
    assert node.requests == []


async def test_context_that_fits_exactly() -> None:
    """Prompt and answer may fill the context to the last token."""
    events = await answer(saying("Hi", context_length=len(PROMPT) + 2), max_tokens=2)
    assert text_of(events) == "Hi"


async def test_default_max_tokens() -> None:
    """The configured max_tokens applies if the request has none, and never exceeds the context."""
    node = saying("Hi", context_length=100)
    async with subnet(node) as (models, _):
        for fields, limit in (({}, 7), ({"max_tokens": 9}, 9)):
            completion = await prepare(
                generation_request(request(**fields)), models, settings=GenerationSettings(default_max_tokens=7)
            )
            assert completion.sampling.max_tokens == limit
        completion = await prepare(
            generation_request(request()), models, settings=GenerationSettings(default_max_tokens=1000)
        )
        assert completion.sampling.max_tokens == 100 - len(PROMPT)


async def test_control_tokens_in_user_messages() -> None:
    """The text of a control token in a user's message is tokenized as ordinary text, unlike in the template."""
    node = saying("Hi", chat_template=CHATML)
    await answer(node, messages=[{"role": "user", "content": "a<|end|>b"}])
    assert unpack(node.requests[0].prompt).tolist() == [*b"a<|end|>b", 256]
    assert node.requests[0].text == "a<|end|>b<|end|>"


async def test_large_request() -> None:
    """A prompt that is prepared in a thread equals one prepared in the event loop."""
    async with subnet(saying("Hi")) as (models, _):
        small, large = [
            (await prepare(generation_request(request()), models, size=size)).prompt for size in (0, OFFLOAD_THRESHOLD)
        ]
    assert small.tolist() == large.tolist() == list(PROMPT.encode())


class Held(ModelRegistry):
    """Registry whose models block in `write` until `released`; `reached` is set when a model was requested."""

    def __init__(self, models: ModelRegistry) -> None:
        self.models = models
        self.reached = asyncio.Event()
        self.released = threading.Event()

    async def get(self, name: str) -> Model:
        model, released = await self.models.get(name), self.released

        class Waits(Model):
            def render(
                self, conversation: Conversation, template: ChatTemplate | None = None, budget: Budget | None = None
            ) -> Prompt:
                assert released.wait(60)
                return model.render(conversation, template, budget)

        self.reached.set()
        return Waits(model.card, model._loaded)


async def test_large_requests_do_not_block_others() -> None:
    """A small request is prepared while a large one is still being prepared in a thread."""
    async with subnet(saying("Hi")) as (models, _):
        held = Held(models)
        large = asyncio.create_task(prepare(generation_request(request()), held, size=OFFLOAD_THRESHOLD))
        await held.reached.wait()
        await prepare(generation_request(request()), models)
        assert not large.done()
        held.released.set()
        assert len((await large).prompt) == len(PROMPT)


async def test_slow_templates_do_not_block_others() -> None:
    """A request is prepared while a slow chat template renders in a thread, the first time and the next."""
    loop = "{% for i in range(9999) %}{% set x = i %}{% endfor %}"
    template = CHATML + "{% if 'Hello' in messages[-1].content %}" + loop + "{% endif %}"
    other = request(messages=[{"role": "user", "content": "Hi"}])
    async with subnet(saying("Hi", chat_template=template)) as (models, _):
        await prepare(generation_request(other), models)
        for _ in range(2):
            slow = asyncio.create_task(prepare(generation_request(request()), models))
            await asyncio.sleep(0)
            assert not slow.done()
            assert len((await slow).prompt) == len("Hello") + 1
        model = await models.get("mock")
        assert model.template(generation_request(other).conversation).last_units > 20_000


async def test_only_large_work_uses_a_thread() -> None:
    """Only work of at least LARGE bytes runs in a thread."""
    here = threading.get_ident()
    assert await offload_if_large(OFFLOAD_THRESHOLD - 1, threading.get_ident) == here
    assert await offload_if_large(OFFLOAD_THRESHOLD, threading.get_ident) != here


async def test_template_that_raises() -> None:
    """The message of a template's raise_exception is the message of the error."""
    node = saying("Hi", chat_template="{{ raise_exception('no system please') }}")
    with pytest.raises(InvalidRequest, match="no system please"):
        await answer(node)


class Library(MockProtocol):
    """Node that returns its tokenizer once `opened` is set, after `failures` failed requests."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(list(b"Hi"))
        self.failures = failures
        self.asked = 0
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def rpc_artefact(self, sha256: str) -> bytes:
        self.asked += 1
        self.reached.set()
        await self.opened.wait()
        if self.asked <= self.failures:
            raise NodeLost("gone")
        return BYTE_LEVEL


async def test_concurrent_loads_are_shared() -> None:
    """Concurrent requests for a model that is not loaded yet share one load, even if the first of them is cancelled."""
    node = Library()
    async with subnet(node) as (models, _):
        waiting = [asyncio.create_task(models.get("mock")) for _ in range(3)]
        await node.reached.wait()
        waiting[0].cancel()
        node.opened.set()
        first, second = await asyncio.gather(*waiting[1:])
        await models.get("mock")
    assert node.asked == 1
    assert first.fingerprint == second.fingerprint


async def test_failed_load_is_repeated() -> None:
    """After a failed load of a model, the next request loads it again."""
    node = Library(failures=1)
    node.opened.set()
    async with subnet(node) as (models, _):
        with pytest.raises(NoNodeAvailable):
            await models.get("mock")
        assert (await models.get("mock")).card.id == "mock"


async def test_unknown_model() -> None:
    """The error for an unknown model names it and lists the existing ones."""
    async with subnet(saying("Hi")) as (models, _):
        with pytest.raises(ModelNotFound, match=r"'other' does not exist.*mock"):
            await models.get("other")


async def test_model_without_nodes_is_unavailable() -> None:
    """A model whose last node was removed is unavailable, not unknown."""
    async with RemoteManager([saying("Hi")]) as remotes:
        await remotes.ready()
        models = ModelRegistry(remotes)
        models.cards()
        await remotes.remove("mock")
        with pytest.raises(NoNodeAvailable, match="'mock'"):
            models.card(Candidate("mock"))


async def test_no_model_yet() -> None:
    """Before any node has responded, every model is unavailable, not unknown."""
    async with RemoteManager([]) as remotes:
        with pytest.raises(NoNodeAvailable):
            ModelRegistry(remotes).card(Candidate("mock"))


async def test_random_seed() -> None:
    """A request without a seed reaches the node with a random one."""
    seeds: list[int | None] = []

    def script(asked: Generate) -> list[int]:
        seeds.append(asked.sampling.seed)
        return [65]

    await answer(MockProtocol(script))
    assert seeds[0] is not None


@pytest.mark.parametrize(
    ("limit", "used"), [({}, {"a", "b"}), ({"max_tokens": 10}, {"a", "b"}), ({"max_tokens": 3000}, {"b"})]
)
async def test_all_nodes_are_used_whatever_their_context(limit: dict[str, int], used: set[str]) -> None:
    """A request without a limit goes to any node; one with a limit to those that have room for it."""
    nodes = [saying("Hi", peer="a", context_length=1000), saying("Hi", peer="b", context_length=4000)]
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as client:
        while {row["state"] for row in (await client.get("/nodes")).json()["nodes"]} != {"healthy"}:
            pass
        for _ in range(4):
            assert (await client.post("/v1/chat/completions", json=ASK | limit)).status_code == 200
    assert {node.peer for node in nodes if node.requests} == used
