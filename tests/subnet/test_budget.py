"""Budgets: what clients take, what is refused, and when the refused should return."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.budget import MAX_RETRY_AFTER, Budget
from subnet.errors import ClientLimited, Overloaded


def test_the_share_of_a_client() -> None:
    """A client gets its share and no more; another one still gets the rest, and then all are refused."""
    budget = Budget("Waiting requests", 10, 0.6)
    budget.take("a", 6)
    with pytest.raises(ClientLimited, match=r"Waiting requests of this client have reached its limit of 6\."):
        budget.take("a")
    budget.take("b", 4)
    assert budget.is_full
    with pytest.raises(Overloaded, match=r"Waiting requests have reached the gateway's limit of 10\."):
        budget.take("c")
    budget.release("a")
    budget.take("c")


def test_unknown_clients_are_limited_only_in_all() -> None:
    """Requests whose client is not known may use the whole budget."""
    budget = Budget("Waiting requests", 10, 0.5)
    budget.take(None, 10)
    with pytest.raises(Overloaded):
        budget.take(None)


def test_a_share_is_at_least_one_unit() -> None:
    """The smallest share of a small budget still lets a client in."""
    budget = Budget("Waiting requests", 3, 0.01)
    budget.take("a")
    budget.take("b")


def test_retry_after_grows_with_the_refusals() -> None:
    """Each refused request is asked to return later than the one before, up to a maximum, and sooner again when units
    are released.
    """
    budget = Budget("Waiting requests", 2)
    budget.take("a")
    budget.take("a")
    times = [_refused(budget) for _ in range(10_000)]
    assert times == sorted(times)
    assert 1 < times[0] < times[1] < times[-1] == MAX_RETRY_AFTER
    budget.release("a")
    budget.take("b")
    assert _refused(budget) <= MAX_RETRY_AFTER
    budget.release("a")
    budget.release("b")
    budget.take("b", 2)
    assert _refused(budget) == times[0]


def _refused(budget: Budget) -> float:
    with pytest.raises(Overloaded) as caught:
        budget.take("c")
    assert caught.value.retry_after is not None
    return caught.value.retry_after


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.booleans())), st.integers(1, 12))
def test_what_is_used_is_what_was_taken_and_not_released(steps: list[tuple[str, int, bool]], limit: int) -> None:
    """However clients take and release, neither limit is exceeded, and refusals take nothing."""
    budget, used = Budget("Waiting requests", limit, 0.5), dict.fromkeys("abc", 0)
    for client, units, takes in steps:
        if not takes:
            if used[client]:
                budget.release(client, used[client])
            used[client] = 0
            continue
        fits = sum(used.values()) + units <= limit and used[client] + units <= max(1, limit // 2)
        try:
            budget.take(client, units)
        except (Overloaded, ClientLimited):
            assert not fits
        else:
            assert fits
            used[client] += units
        assert budget.used == sum(used.values())
