"""State that the sessions of one request share."""

from __future__ import annotations

from collections.abc import Callable


class RequestState:
    """State of a request for which several models may be tried, one after the other.

    While `may_queue` returns False, another model can be asked: then a session waits neither for capacity nor for nodes
    to recover. `first_failure` is the time of the first failure since the last new token, by time.monotonic; None if
    there was none. answer_timeout counts from `started`, by the same clock; None: from the beginning of a generation.
    """

    __slots__ = ("first_failure", "may_queue", "started")

    def __init__(
        self,
        may_queue: Callable[[], bool] = lambda: True,
        first_failure: float | None = None,
        started: float | None = None,
    ) -> None:
        self.may_queue = may_queue
        self.first_failure = first_failure
        self.started = started
