"""Translation of parameter names in errors of the subnet to those of the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from subnet.errors import RequestError


@contextmanager
def renamed_params(names: Mapping[str, str]) -> Iterator[None]:
    """Context manager that applies `rename_param` to a RequestError raised in its body."""
    try:
        yield
    except RequestError as error:
        raise rename_param(error, names) from error.__cause__


def rename_param(error: RequestError, names: Mapping[str, str]) -> RequestError:
    """Return `error` with its parameter, if it is a key of `names`, replaced by the value, also in the message."""
    name = names.get(error.param or "")
    if name is None:
        return error
    return type(error)(error.message.replace(f"'{error.param}'", f"'{name}'"), param=name)
