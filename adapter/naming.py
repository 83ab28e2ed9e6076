"""What the subnet refuses by its own names, in the names of the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from adapter.schema.formats import TextFormat
from adapter.schema.sampling import SamplingRequest
from subnet.errors import RequestError


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Refusals that name one of `names` name what it stands for instead."""
    try:
        yield
    except RequestError as error:
        own = names.get(error.param or "")
        if own is None:
            raise
        message = error.message
        if message.endswith(f": {error.param}"):
            message = message.removesuffix(error.param or "") + own
        raise type(error)(message, param=own) from error


def grammar_name(request: SamplingRequest) -> str:
    """The parameter that an answer has a grammar for: of several the one that says the most."""
    for name in ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"):
        if getattr(request, name) is not None:
            return name
    asked = request.response_format
    return "tools" if asked is None or isinstance(asked, TextFormat) else "response_format"
