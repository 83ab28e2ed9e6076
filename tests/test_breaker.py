"""The breaker: when it opens, whom it lets through, and who may close it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from subnet.pool.breaker import Breaker


def opened(breaker: Breaker, now: float = 0.0) -> None:
    """Fail requests until it opens."""
    while breaker.state(now) == "closed":
        breaker.on_failure(breaker.on_start(now), now)


def test_it_opens_and_closes() -> None:
    """Three failures open it; after the cooldown one probe passes, and its success closes it."""
    breaker = Breaker(threshold=3, cooldown=1.0)
    for _ in range(3):
        assert breaker.allows(0.0)
        breaker.on_failure(breaker.on_start(0.0), 0.0)
    assert not breaker.allows(0.9)
    assert (breaker.state(0.9), breaker.reason) == ("open", "3 consecutive failures")
    assert breaker.allows(1.0)
    probe = breaker.on_start(1.0)
    assert not breaker.allows(1.0)
    breaker.on_success(probe)
    assert breaker.state(1.0) == "closed"


def test_a_failed_probe_doubles_the_cooldown() -> None:
    """A node that stays bad is asked less and less, up to a bound."""
    breaker = Breaker(threshold=1, cooldown=1.0, cooldown_max=3.0)
    opened(breaker)
    waits, now = [], 0.0
    for _ in range(4):
        waits.append(breaker.wait(now))
        now += waits[-1]
        breaker.on_failure(breaker.on_start(now), now)
    assert waits == [1.0, 2.0, 3.0, 3.0]


def test_a_success_forgets_failures_in_a_row() -> None:
    """Few failures with successes between them do not open it."""
    breaker = Breaker(threshold=2)
    for _ in range(5):
        breaker.on_failure(breaker.on_start(0.0), 0.0)
        for _ in range(2):
            breaker.on_success(breaker.on_start(0.0))
    assert breaker.state(0.0) == "closed"


def test_the_rate_of_failures() -> None:
    """Half of the recent requests failing opens it, though never two in a row; too few say nothing yet."""
    breaker = Breaker(threshold=3, rate=0.5, window=20, least=10)
    for count in range(1, 11):
        assert breaker.state(0.0) == "closed"
        ticket = breaker.on_start(0.0)
        if count % 2:
            breaker.on_success(ticket)
        else:
            breaker.on_failure(ticket, 0.0)
    assert (breaker.state(0.0), breaker.reason) == ("open", "5 of the last 10 requests failed")


def test_what_is_long_ago_does_not_count() -> None:
    """The window holds a bounded number of requests."""
    breaker = Breaker(threshold=99, rate=0.5, window=10, least=10)
    for failed in [*[True] * 4, *[False] * 10, *[True] * 4]:
        ticket = breaker.on_start(0.0)
        if failed:
            breaker.on_failure(ticket, 0.0)
        else:
            breaker.on_success(ticket)
    assert breaker.state(0.0) == "closed"
    breaker.on_failure(breaker.on_start(0.0), 0.0)
    assert breaker.reason == "5 of the last 10 requests failed"


def test_an_abandoned_probe_frees_its_place() -> None:
    """A client that leaves during the probe does not keep the node out for ever."""
    breaker = Breaker(threshold=1, cooldown=1.0)
    opened(breaker)
    breaker.on_abandoned(breaker.on_start(2.0))
    assert breaker.allows(2.0)


def test_requests_from_before_it_opened() -> None:
    """They neither close it, nor open it again, nor free the probe's place."""
    breaker = Breaker(threshold=1, cooldown=1.0)
    before = [breaker.on_start(0.0) for _ in range(4)]
    opened(breaker)
    breaker.on_success(before[0])
    assert breaker.state(0.5) == "open"
    probe = breaker.on_start(1.0)
    breaker.on_abandoned(before[1])
    breaker.on_failure(before[2], 1.5)
    breaker.on_answer(before[3])
    assert breaker.state(1.5) == "half-open"
    assert not breaker.allows(1.5)
    breaker.on_success(probe)
    assert breaker.allows(1.5)


def test_the_first_token_of_a_probe_is_enough() -> None:
    """Others need not wait for the end of a long answer; if it fails after all, that counts as any failure."""
    breaker = Breaker(threshold=2, cooldown=1.0)
    opened(breaker)
    probe = breaker.on_start(1.0)
    breaker.on_answer(probe)
    assert breaker.state(1.0) == "closed"
    breaker.on_failure(probe, 2.0)
    breaker.on_failure(breaker.on_start(2.0), 2.0)
    assert breaker.state(2.0) == "open"


def test_a_node_that_was_started_anew() -> None:
    """It gets its probe at once, and only one."""
    breaker = Breaker(threshold=1, cooldown=8.0)
    opened(breaker)
    breaker.on_return(0.1)
    assert breaker.allows(0.1)
    breaker.on_start(0.1)
    assert not breaker.allows(0.1)


ENDS = st.sampled_from(["success", "failure", "abandoned", "answer"])
STEPS = st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.integers(0, 50), ENDS), max_size=200)


@given(STEPS)
def test_whatever_happens(steps: list[tuple[float, bool, int, str]]) -> None:
    """While it is not closed at most one request passes at a time; and a node that is well again is soon used."""
    breaker, now = Breaker(cooldown_max=8.0), 0.0
    running: list[tuple[int, bool]] = []
    for pause, start, which, end in steps:
        now += pause
        if start and breaker.allows(now):
            running.append((breaker.on_start(now), breaker.state(now) == "half-open"))
            if running[-1][1]:
                assert not breaker.allows(now)
        elif running:
            ticket, _ = running.pop(which % len(running))
            match end:
                case "success":
                    breaker.on_success(ticket)
                case "failure":
                    breaker.on_failure(ticket, now)
                case "abandoned":
                    breaker.on_abandoned(ticket)
                case "answer":
                    breaker.on_answer(ticket)
                    breaker.on_success(ticket)
    for ticket, _ in running:
        breaker.on_abandoned(ticket)
    now += breaker.wait(now)
    assert breaker.wait(now) <= 8.0
    assert breaker.allows(now)
    breaker.on_success(breaker.on_start(now))
    assert breaker.state(now) == "closed"
