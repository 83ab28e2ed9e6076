"""What goes wrong between here and a server, as our errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from subnet.errors import NodeLost, WireError


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """What aiohttp raises inside becomes NodeLost, or WireError for what is no HTTP. `peer` is the server's address."""
    try:
        yield
    except aiohttp.ClientHttpProxyError as error:
        raise NodeLost(f"the proxy for {peer} answered {error.status}") from error
    except aiohttp.ClientResponseError as error:
        raise WireError(f"{peer} sent an invalid HTTP response") from error
    except TimeoutError as error:
        raise NodeLost(f"connecting to {peer} timed out (connect_timeout)") from error
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL, UnicodeError) as error:
        raise NodeLost(f"cannot connect to {peer}: {_plain(error)}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise NodeLost(f"the connection to {peer} was lost") from error


def _plain(error: Exception) -> str:
    """The system's own words, without the library's."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    number = getattr(error, "errno", None)
    return os.strerror(number) if number is not None and number > 0 else getattr(error, "strerror", None) or str(error)
