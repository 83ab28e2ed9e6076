"""What the subnet refuses by its own names, in the names of the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from subnet.errors import RequestError


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Refusals are `renamed`."""
    try:
        yield
    except RequestError as error:
        raise renamed(error, names) from error.__cause__


def renamed(error: RequestError, names: Mapping[str, str]) -> RequestError:
    """A refusal that names one of `names` names what it stands for instead."""
    own = names.get(error.param or "")
    if own is None:
        return error
    return type(error)(error.message.replace(f"'{error.param}'", f"'{own}'"), param=own)
