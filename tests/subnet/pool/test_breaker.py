"""The circuit breaker: when it opens, which requests it allows, and what closes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from subnet.pool.breaker import Breaker


def open_breaker(breaker: Breaker, now: float = 0.0) -> None:
    """Report failures until `breaker` opens."""
    while breaker.state(now) == "closed":
        breaker.on_failure(breaker.on_start(now), now)


def test_the_breaker_opens_and_closes() -> None:
    """Three failures open the breaker; after the cooldown one trial request is allowed, and its success closes it."""
    breaker = Breaker(threshold=3, cooldown=1.0)
    for _ in range(3):
        assert breaker.allows(0.0)
        breaker.on_failure(breaker.on_start(0.0), 0.0)
    assert not breaker.allows(0.9)
    assert (breaker.state(0.9), breaker.reason) == ("open", "3 consecutive failures")
    assert breaker.allows(1.0)
    trial = breaker.on_start(1.0)
    assert not breaker.allows(1.0)
    breaker.on_success(trial)
    assert breaker.state(1.0) == "closed"


def test_a_failed_trial_request_doubles_the_cooldown() -> None:
    """The cooldown of a node that keeps failing doubles with each trial request, up to cooldown_max."""
    breaker = Breaker(threshold=1, cooldown=1.0, cooldown_max=3.0)
    open_breaker(breaker)
    waits, now = [], 0.0
    for _ in range(4):
        waits.append(breaker.remaining_cooldown(now))
        now += waits[-1]
        breaker.on_failure(breaker.on_start(now), now)
    assert waits == [1.0, 2.0, 3.0, 3.0]


def test_a_failed_trial_request_is_followed_by_another() -> None:
    """After each failed trial request and its cooldown, one more is allowed, however many have failed."""
    breaker, now = Breaker(threshold=1), 0.0
    open_breaker(breaker)
    for _ in range(3):
        now += breaker.remaining_cooldown(now)
        assert breaker.allows(now)
        breaker.on_failure(breaker.on_start(now), now)


def test_failures_before_the_opening_do_not_count_for_the_rate() -> None:
    """A node that recovered starts with no failures: one more does not open the breaker again."""
    breaker = Breaker(threshold=99, failure_rate=0.5, min_requests=10, cooldown=1.0)
    open_breaker(breaker)
    assert breaker.reason == "10 of the last 10 requests failed"
    breaker.on_success(breaker.on_start(1.0))
    breaker.on_failure(breaker.on_start(1.0), 1.0)
    assert breaker.state(1.0) == "closed"


def test_a_success_resets_the_cooldown() -> None:
    """A node that recovered and fails again is left alone for the initial cooldown, however long the last one was."""
    breaker = Breaker(threshold=1, cooldown=1.0)
    open_breaker(breaker)
    breaker.on_failure(breaker.on_start(1.0), 1.0)
    assert breaker.remaining_cooldown(1.0) == 2.0
    breaker.on_success(breaker.on_start(3.0))
    open_breaker(breaker, 3.0)
    assert breaker.remaining_cooldown(3.0) == 1.0


def test_a_success_resets_consecutive_failures() -> None:
    """Fewer failures than the threshold between two successes do not open the breaker."""
    breaker = Breaker(threshold=2)
    for _ in range(5):
        breaker.on_failure(breaker.on_start(0.0), 0.0)
        for _ in range(2):
            breaker.on_success(breaker.on_start(0.0))
    assert breaker.state(0.0) == "closed"


def test_the_failure_rate_opens_the_breaker() -> None:
    """After min_requests requests, a failure rate of one half opens the breaker even without consecutive failures."""
    breaker = Breaker(threshold=3, failure_rate=0.5, window=20, min_requests=10)
    for count in range(1, 11):
        assert breaker.state(0.0) == "closed"
        epoch = breaker.on_start(0.0)
        if count % 2:
            breaker.on_success(epoch)
        else:
            breaker.on_failure(epoch, 0.0)
    assert (breaker.state(0.0), breaker.reason) == ("open", "5 of the last 10 requests failed")


def test_the_failure_rate_counts_recent_requests_only() -> None:
    """Failures before the last `window` requests do not count for the failure rate."""
    breaker = Breaker(threshold=99, failure_rate=0.5, window=10, min_requests=10)
    for failed in [*[True] * 4, *[False] * 10, *[True] * 4]:
        epoch = breaker.on_start(0.0)
        if failed:
            breaker.on_failure(epoch, 0.0)
        else:
            breaker.on_success(epoch)
    assert breaker.state(0.0) == "closed"
    breaker.on_failure(breaker.on_start(0.0), 0.0)
    assert breaker.reason == "5 of the last 10 requests failed"


def test_an_abandoned_trial_request_allows_another() -> None:
    """A client that disconnects during the trial request does not keep the breaker half-open forever."""
    breaker = Breaker(threshold=1, cooldown=1.0)
    open_breaker(breaker)
    breaker.on_abandoned(breaker.on_start(2.0))
    assert breaker.allows(2.0)


def test_reports_from_before_the_opening_are_ignored() -> None:
    """Requests sent before the breaker opened neither close it, nor open it again, nor allow a second trial request."""
    breaker = Breaker(threshold=1, cooldown=1.0)
    before = [breaker.on_start(0.0) for _ in range(4)]
    open_breaker(breaker)
    breaker.on_success(before[0])
    assert breaker.state(0.5) == "open"
    trial = breaker.on_start(1.0)
    breaker.on_abandoned(before[1])
    breaker.on_failure(before[2], 1.5)
    breaker.on_first_token(before[3])
    assert breaker.state(1.5) == "half-open"
    assert not breaker.allows(1.5)
    breaker.on_success(trial)
    assert breaker.allows(1.5)


def test_the_first_token_of_a_trial_request_closes_the_breaker() -> None:
    """The first token of the trial request closes the breaker; a failure after that counts like any other."""
    breaker = Breaker(threshold=2, cooldown=1.0)
    open_breaker(breaker)
    trial = breaker.on_start(1.0)
    breaker.on_first_token(trial)
    assert breaker.state(1.0) == "closed"
    breaker.on_failure(trial, 2.0)
    assert breaker.state(2.0) == "closed"
    breaker.on_failure(breaker.on_start(2.0), 2.0)
    assert breaker.state(2.0) == "open"


def test_a_restart_ends_the_cooldown() -> None:
    """A restarted node gets a trial request at once, but only one."""
    breaker = Breaker(threshold=1, cooldown=8.0)
    open_breaker(breaker)
    breaker.on_restart(0.1)
    assert breaker.allows(0.1)
    breaker.on_start(0.1)
    assert not breaker.allows(0.1)


ENDS = st.sampled_from(["success", "failure", "abandoned", "first token"])
STEPS = st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.integers(0, 50), ENDS), max_size=200)


@given(STEPS)
def test_at_most_one_trial_request_at_a_time(steps: list[tuple[float, bool, int, str]]) -> None:
    """A breaker that is not closed allows one request at a time, and a recovered node is used within cooldown_max."""
    breaker, now = Breaker(cooldown_max=8.0), 0.0
    running: list[tuple[int, bool]] = []
    for pause, start, which, end in steps:
        now += pause
        if start and breaker.allows(now):
            running.append((breaker.on_start(now), breaker.state(now) == "half-open"))
            if running[-1][1]:
                assert not breaker.allows(now)
        elif running:
            epoch, _ = running.pop(which % len(running))
            match end:
                case "success":
                    breaker.on_success(epoch)
                case "failure":
                    breaker.on_failure(epoch, now)
                case "abandoned":
                    breaker.on_abandoned(epoch)
                case "first token":
                    breaker.on_first_token(epoch)
                    breaker.on_success(epoch)
    for epoch, _ in running:
        breaker.on_abandoned(epoch)
    now += breaker.remaining_cooldown(now)
    assert breaker.remaining_cooldown(now) <= 8.0
    assert breaker.allows(now)
    breaker.on_success(breaker.on_start(now))
    assert breaker.state(now) == "closed"
