"""Factory of sessions with common limits, authorizer and hedger."""

from __future__ import annotations

from collections.abc import Mapping

from subnet.authorizers import AuthorizerBase
from subnet.client.prompt_scoring import PromptEvaluator
from subnet.client.race import Hedger
from subnet.client.request_state import RequestState
from subnet.client.session import Session
from subnet.client.suspects import SuspectRequests
from subnet.client.timeouts import Limits
from subnet.node_info import Lane
from subnet.pool.manager import RemoteManager


class SessionManager:
    """Creates sessions: `async with session_manager.session() as session`.

    `model_limits` override `limits` for individual models. All sessions share the `hedger`.
    """

    def __init__(
        self,
        remote_manager: RemoteManager,
        authorizer: AuthorizerBase | None = None,
        *,
        limits: Limits | None = None,
        model_limits: Mapping[str, Limits] | None = None,
        hedger: Hedger | None = None,
    ) -> None:
        self._remote_manager = remote_manager
        self._authorizer = authorizer
        self._limits = limits or Limits()
        self._model_limits = model_limits or {}
        self._hedger = hedger or Hedger()
        self._suspects = SuspectRequests()

    def session(
        self,
        model: str | None = None,
        *,
        key: str | None = None,
        priority: int = 0,
        state: RequestState | None = None,
        identity: str = "",
    ) -> Session:
        """Create a session for `model` (None: any model). Use it as `async with manager.session(...) as session`.

        Sessions with the same `key` use the same node if the policy supports it. When all nodes are at capacity,
        requests with a lower `priority` number go first, and requests of the same priority in order of arrival. `state`
        is shared with other sessions of the same request, see RequestState. `identity` is that of the card for which
        the prompt is made, see ModelCard; "": the one that the model's nodes have in common.
        """
        return Session(
            self._remote_manager,
            self._authorizer,
            model=model,
            key=key,
            priority=priority,
            state=state,
            limits=self._limits_of(model),
            hedger=self._hedger,
            suspects=self._suspects,
            identity=identity,
        )

    def prompt_evaluator(
        self, model: str, *, priority: int = 0, state: RequestState | None = None, identity: str = ""
    ) -> PromptEvaluator:
        """Create an evaluator for embeddings and prompt logprobs; `state` and `identity` as for `session`."""
        return PromptEvaluator(
            self._remote_manager,
            model,
            self._limits_of(model),
            priority=priority,
            state=state,
            identity=identity,
        )

    def _limits_of(self, model: str | None) -> Limits:
        return self._limits if model is None else self._model_limits.get(model, self._limits)

    def capacity(self, model: str, lane: Lane = "token") -> int:
        """Return the number of choices that the healthy nodes of `model` can generate at once, at least 1."""
        return self._remote_manager.capacity(model, lane)
