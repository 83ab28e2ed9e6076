"""Refusals of a request by nodes of the token lane, which may be wrong: another node is asked, once."""

from __future__ import annotations

import logging

from subnet.errors import ContentRefused, ContextLengthExceeded, InvalidRequest, RequestError, printable
from subnet.generation import Sampling
from subnet.pool.deployment import Deployment
from subnet.pool.lease import Lease
from subnet.pool.requirements import Requirements

logger = logging.getLogger(__name__)

# What a refusal may name as its parameter: nothing else that a node says reaches a client.
_PARAMS = frozenset(Sampling.__struct_fields__) | {
    *("model", "messages", "prompt", "input", "tools", "response_format", "choices", "top_logprobs"),
}


class Refusals:
    """Refusals of one request, which the gateway has checked, too.

    A node that says that a request is invalid is right if the gateway can see it itself: the node lacks a feature, or
    the request is longer than its context. Else another node is asked once, if there is one, and has the last word.
    The client gets the reason in the gateway's own words; what the nodes said is only in the log.
    """

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: Lease | None = None

    def __bool__(self) -> bool:
        """Return whether a node has refused the request."""
        return self._first is not None

    def on_refusal(self, error: RequestError, lease: Lease, requirements: Requirements, *, has_other: bool) -> None:
        """Return if another node is to be asked, and raise the error for the client otherwise."""
        raise_if_invalid(error, lease.deployment, requirements)
        logger.warning("node %s refused a request (%s): %s", lease.remote.peer, error.code, printable(error.message))
        if self._first is None and has_other:
            self._first = lease
            return
        raise own_words(error)

    def on_hedge_refusal(self, lease: Lease) -> None:
        """Record that the node of `lease` refused the request while another one was asked as well, and served it."""
        self._first = self._first or lease

    def on_success(self, lease: Lease, digest: bytes) -> None:
        """Mark the node that refused the request, whose digest is `digest`, and which the node of `lease` served."""
        first, self._first = self._first, None
        if first is not None and first.deployment is not lease.deployment:
            first.contradicted(digest, lease.remote.peer)


def raise_if_invalid(error: RequestError, deployment: Deployment, requirements: Requirements) -> None:
    """Raise the error for the client if the gateway can see that the node had to refuse the request."""
    capabilities = deployment.remote.capabilities
    if (missing := next((need for need in requirements.needs if not need.is_met(capabilities)), None)) is not None:
        message = f"Unsupported value for '{missing.param}': this model does not support it."
        raise InvalidRequest(message, param=missing.param)
    length, prompt = deployment.context_length, requirements.size.prompt
    if isinstance(error, ContextLengthExceeded) and prompt >= length:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {length:.0f} tokens. However, the request is longer.",
            param=_known(error.param),
        )


def own_words(error: RequestError) -> RequestError:
    """Return the error for the client: of the same class, without anything that the node says."""
    param = _known(error.param)
    if isinstance(error, ContextLengthExceeded):
        return ContextLengthExceeded("The request exceeds the context length of the model's nodes.", param=param)
    if isinstance(error, ContentRefused):
        return ContentRefused("The model's nodes refuse the content of the request.", param=param)
    if param is None:
        return InvalidRequest("The model's nodes do not accept this request.")
    return InvalidRequest(f"Invalid value for '{param}': the model's nodes do not accept it.", param=param)


def _known(param: str | None) -> str | None:
    return param if param in _PARAMS else None
