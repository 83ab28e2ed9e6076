"""Chat templates of nodes and clients that would take any time or memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import pytest

from adapter.config import Settings
from adapter.prompt import Budget, ChatTemplate
from adapter.prompt.jinja_template import JinjaTemplate
from adapter.prompt.metered.budget import BASE_MEMORY, BudgetExceeded
from subnet import Limits
from subnet.errors import SettingsError
from subnet.protocols.mock import MockProtocol, Pause
from tests.fakes import ASK, events_of, gateway, saying
from tests.security.hostile_templates import LOOPS, OPERATORS, REFUSED, TEMPLATES, UNCOMPILED

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
UNITS = 20_000
"""Budget of a rendering that all streams wait for."""
PERCENT = OPERATORS["'%5000000000d' % 1"]


def peak(work: Callable[[], object]) -> int:
    """Return how many bytes of memory `work` needs at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_ends_within_its_budget(name: str) -> None:
    """A template that would take any time or memory exceeds its budget before it has taken much of either."""
    template = JinjaTemplate(TEMPLATES[name])

    def render() -> None:
        with pytest.raises(BudgetExceeded):
            template.render({"messages": MESSAGES}, Budget(UNITS))

    memory = peak(render)
    print(f"peak of {memory / 1e6:.1f} MB")
    assert memory < 4 * BASE_MEMORY


@pytest.mark.parametrize(
    "expression",
    [
        *("lipsum(n=-1000000000)", "lipsum(n=1, max=-1000000000)", "[1] | slice(-1000000000) | list", "lipsum(n=nan)"),
        *("[1] | batch(-1000000000, 0) | list", "[1] | slice(nan) | list", "[1] | batch(nan, 0) | list"),
        *(
            "[range(99)] | map('items of a loop', -10000) | map('list') | list",
            "[range(99)] | map('items of a loop', nan) | map('list') | list",
        ),
        *("'a' * -1000000000", "'a'.center(-1000000000)", "'a' | indent(-1000000000)", "'a'.expandtabs(-1000000000)"),
        *("'a'.replace('a', 'b', -1000000000)", "'a b'.split(' ', -1000000000)", "'%*d' % (-9, 1)", "1 | round(nan)"),
        *("[1] | tojson(indent=-1000000000)", "range(9, -1000000000, -1000000000) | list"),
    ],
)
def test_numbers_do_not_add_to_a_budget(expression: str) -> None:
    """A negative number, or one that is not a number, never gives a template more than it has."""
    budget = Budget(UNITS)
    with suppress(TypeError, ValueError, BudgetExceeded):
        JinjaTemplate("{{ " + expression + " }}").render({"nan": math.nan}, budget)
    assert budget.left < UNITS
    assert budget.memory <= BASE_MEMORY


def test_values_that_contain_themselves() -> None:
    """What a template keeps in reference cycles is freed before it becomes much."""
    template = JinjaTemplate("{% set l = [] %}{% set _ = l.append(l) %}{% set _ = l.append('a' * 3000000) %}")
    gc.collect()
    gc.disable()
    try:
        memory = peak(lambda: [template.render({}) for _ in range(100)])
    finally:
        gc.enable()
    assert memory < 100_000_000


def test_escaped_texts_are_counted_before_they_are_made() -> None:
    """A text that is formatted into one that escapes it may become much longer."""
    template = JinjaTemplate("{{ ('%s' | safe) % x }}")

    def render() -> None:
        with pytest.raises(BudgetExceeded):
            template.render({"x": '"' * 900_000}, Budget(1_000_000))

    assert peak(render) < BASE_MEMORY


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_is_refused(name: str) -> None:
    """An operation whose result no chat template needs is refused before it runs."""
    template = JinjaTemplate(REFUSED[name])

    def render() -> None:
        with pytest.raises(Exception, match=r"not allowed|exceed|cannot call|unsafe|can encode"):
            template.render({"messages": MESSAGES})

    assert peak(render) < 4 * BASE_MEMORY


@pytest.mark.parametrize("name", UNCOMPILED)
def test_a_template_that_is_not_compiled(name: str) -> None:
    """A template that is nested too deep, or too large, is refused with a reason."""
    with pytest.raises(SettingsError, match=r"does not compile|too complex|characters"):
        JinjaTemplate(UNCOMPILED[name])


@pytest.mark.parametrize(
    "source", [LOOPS["nested loops"], PERCENT, "{% if messages | length > 2 %}" + PERCENT + "{% endif %}"]
)
def test_a_template_is_refused_when_it_is_loaded(source: str) -> None:
    """A template that exceeds its budget with a conversation of a few words is refused with a reason."""
    with pytest.raises(SettingsError, match="takes too much time or memory, even with a short conversation"):
        ChatTemplate(source)


async def test_a_node_with_a_hostile_template(caplog: pytest.LogCaptureFixture) -> None:
    """The model of a node with a hostile template is unusable, with one line in the log, and others are served."""
    nodes = (
        saying("Hi", chat_template=LOOPS["nested loops"], model="hostile"),
        saying("Hi", model="honest", peer="honest"),
    )
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(3):
            answer = await client.post(CHAT, json={**ASK, "model": "hostile"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unusable")
        answer = await client.post(CHAT, json={**ASK, "model": "honest"})
        assert answer.json()["choices"][0]["message"]["content"] == "Hi"
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "model 'hostile' cannot be loaded: the chat template takes too much time or memory" in record.message


def condition(source: str) -> str:
    """Return a template that is hostile only to some messages, so that it can be loaded."""
    return "{% if 'attack' in messages[-1].content %}" + source + "{% endif %}{{ messages[-1].content }}"


async def ask(client: httpx.AsyncClient, **fields: Any) -> tuple[int, dict[str, Any]]:
    answer = await client.post(CHAT, json={**ASK, **fields})
    return answer.status_code, answer.json().get("error", {})


ATTACK = [{"role": "user", "content": "attack"}]


async def test_streams_beside_slow_renderings() -> None:
    """Requests that exceed a template's budget get a 400 that says so, and a stream beside them is complete."""
    text = "honest " * 40
    honest = MockProtocol(
        [step for char in text.encode() for step in (char, Pause(0.002))], peer="honest", model="honest"
    )
    hostile = saying("Hi", chat_template=condition(LOOPS["nested loops"]), model="hostile")
    async with gateway(honest, hostile, limits=Limits()) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        assert (await ask(client, model="hostile"))[0] == 200
        assert (await ask(client, model="honest", max_tokens=1))[0] == 200
        times, body = [], b""
        attacks = [asyncio.create_task(ask(client, model="hostile", messages=ATTACK)) for _ in range(20)]
        request = {**ASK, "model": "honest", "stream": True}
        async with client.stream("POST", CHAT, json=request) as response:
            async for chunk in response.aiter_bytes():
                times.append(asyncio.get_running_loop().time())
                body += chunk
        results = await asyncio.gather(*attacks)
    print(f"largest gap of {max(after - before for before, after in pairwise(times)) * 1e3:.0f} ms")
    chunks = [event for event in events_of(body) if isinstance(event, dict)]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]) == text
    for status, error in results:
        assert (status, error["type"], error["param"]) == (400, "invalid_request_error", "messages")
        assert error["message"].startswith("The model's chat template takes too much time or memory")


async def test_a_hostile_template_of_a_client() -> None:
    """A client's template that exceeds its budget gets a 400, when it is loaded or with the request's messages."""
    async with (
        gateway(saying("Hi"), settings=Settings(access_log=False, allow_chat_template=True)) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        for source, param in ((PERCENT, "chat_template"), (condition(PERCENT), "messages")):
            status, error = await ask(client, chat_template=source, messages=ATTACK)
            assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
            assert "takes too much time or memory" in error["message"]
        assert (await ask(client))[0] == 200
