"""Rows about streams of tokens: their cost, and how many one process can serve."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from statistics import median
from urllib.parse import urlsplit

import msgspec

from tests.bench import yardsticks
from tests.bench.figures import Figures, measure
from tests.bench.load import CHAT, MESSAGES, Incomplete, Load, request
from tests.bench.programs import Program, gateway, node
from tests.bench.table import Row

RATE = 50.0
WARM = Load(20, 50)


def cost(runs: int, short: bool) -> list[Row]:
    """Measure the CPU per token, and that of nginx and of a plain ASGI application for the same stream. They take
    turns, as the speed of the machine varies from one minute to the next.
    """
    load = Load(400, 100 if short else 500)
    with ExitStack() as stack:
        front = stack.enter_context(two_nodes(RATE))
        recording = recorded(front, load.tokens)
        programs = {"": front}
        if (path := yardsticks.nginx_path()) is not None:
            name = f"nginx {yardsticks.nginx_version(path)} passing it through"
            programs[name] = stack.enter_context(yardsticks.nginx(path, recording, RATE))
        programs["raw ASGI on uvicorn"] = stack.enter_context(yardsticks.raw_asgi(recording, RATE))
        for program in programs.values():
            measure(program, Load(20, load.tokens))
        turns = [{name: measure(program, load, RATE) for name, program in programs.items()} for _ in range(runs)]
    ours, *beside = [(name, [turn[name].cpu for turn in turns]) for name in programs]
    missing = "" if path else "no nginx found: install nginx-light, and it is measured too"
    note = "; ".join(filter(None, [missing, late(figures for turn in turns for figures in turn.values())]))
    what = f"CPU per token, {load.streams} streams x {RATE:.0f} tokens/s"
    return [Row(what=what, unit="microseconds", goal=12, values=ours[1], beside=dict(beside), note=note)]


def messages_cost(runs: int, short: bool) -> list[Row]:
    """Measure the CPU per token of messages in Anthropic's dialect, and of chat completions. They take turns."""
    load = Load(400, 100 if short else 500)
    loads = [msgspec.structs.replace(load, path=path) for path in (MESSAGES, CHAT)]
    with two_nodes(RATE) as front:
        measure(front, WARM)
        turns = [[measure(front, one, RATE) for one in loads] for _ in range(runs)]
    messages, chat = ([figures.cpu for figures in one] for one in zip(*turns, strict=True))
    note = late(figures for turn in turns for figures in turn)
    what = f"CPU per token of messages, {load.streams} streams x {RATE:.0f} tokens/s"
    beside = {"chat completions": chat}
    return [Row(what=what, unit="microseconds", goal=1.3 * median(chat), values=messages, beside=beside, note=note)]


def keeping_up(runs: int, short: bool) -> list[Row]:
    load = Load(1000, 100 if short else 500)
    with two_nodes(RATE) as front:
        ours = several(front, load, runs)
    what = f"{load.streams} streams x {RATE:.0f} tokens/s"
    gaps = [figures.gap[1] for figures in ours]
    note = f"CPU per token {median(figures.cpu for figures in ours):.1f} microseconds"
    return [
        Row(what=f"gap between tokens, p99, {what}", unit="ms", goal=60, values=gaps, note=note),
        Row(what=f"streams behind, {what}", unit="streams", goal=0, values=[figures.behind for figures in ours]),
    ]


def unpaced(runs: int, short: bool) -> list[Row]:
    """Measure streams whose nodes send as fast as they can. The gateway lags behind, so one write carries several
    tokens of a stream; at the pace of a model the cost per token is that of `cost`.
    """
    load = Load(64, 1000, answers=1 if short else 4)
    with two_nodes(0) as front:
        ours = several(front, load, runs, 0)
    used = median(figures.per_second / figures.per_cpu_second for figures in ours)
    limit = "which is the limit" if used > 0.9 else "and waiting for load and nodes, on the other"
    return [
        Row(
            what="tokens per second of gateway CPU, 64 streams unpaced",
            unit="tokens",
            goal=100_000,
            more=True,
            values=[figures.per_cpu_second for figures in ours],
            note=f"{median(figures.per_second for figures in ours):,.0f} a second by the clock, "
            f"the gateway's core {100 * used:.0f} % busy, {limit}; several tokens in one write",
        )
    ]


def ten_thousand(runs: int, short: bool) -> list[Row]:
    """Measure 10,000 streams in a single run; they are open together, as an answer takes longer than the ramp."""
    load = Load(1000 if short else 10_000, 50 if short else 200)
    with two_nodes(5) as front:
        (figures,) = several(front, load, 1, 5)
    note = f"gap p99 {figures.gap[1]:.0f} ms, CPU per token {figures.cpu:.1f} microseconds, {figures.memory:.0f} MiB"
    what = f"complete, of {load.streams:,} open at once x 5 tokens/s, one run"
    return [Row(what=what, unit="streams", goal=load.streams, more=True, values=[figures.complete], note=note)]


@contextmanager
def two_nodes(rate: float) -> Iterator[Program]:
    """Run a gateway in front of two nodes."""
    with node(rate) as one, node(rate) as two, gateway(one, two) as front:
        yield front


def several(program: Program, load: Load, runs: int, rate: float = RATE) -> list[Figures]:
    """Return the figures of several runs, after a warm-up that does not count."""
    measure(program, WARM)
    return [measure(program, load, rate) for _ in range(runs)]


def late(figures: Iterable[Figures]) -> str:
    """Return a note if streams fell behind: then one write carried several of their tokens, which makes them
    cheaper.
    """
    behind = sum(one.behind for one in figures)
    return f"{behind} streams fell behind, which makes tokens cheaper" if behind else ""


def recorded(front: Program, tokens: int) -> bytes:
    """Return the body of a streamed answer. Raises Incomplete unless it equals the same answer unstreamed."""
    streamed = _asked(front, request(front.url, "echo", tokens, 1))
    whole = json.loads(_asked(front, request(front.url, "echo", tokens, 1, stream=False)))
    events = [json.loads(event[6:]) for event in streamed.split(b"\n\n")[:-2]]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    if text != whole["choices"][0]["message"]["content"] or whole["usage"]["completion_tokens"] != tokens:
        raise Incomplete("a streamed answer differs from the same answer unstreamed")
    return streamed


def _asked(front: Program, question: bytes) -> bytes:
    connection = HTTPConnection(urlsplit(front.url).netloc)
    connection.request(
        "POST", "/v1/chat/completions", question.partition(b"\r\n\r\n")[2], {"content-type": "application/json"}
    )
    return connection.getresponse().read()
