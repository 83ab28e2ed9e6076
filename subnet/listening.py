"""Listening for connections."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Callable
from contextlib import suppress

from subnet.errors import SettingsError

_BACKLOG = 4096
# Below that, a service runs out of file descriptors with about a thousand clients.
_LOW_LIMIT = 4096
# Limits that are meant to be none, as of older versions of Docker, make some programs slow.
_HIGH_LIMIT = 1 << 20


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; for "::", on all addresses of IPv4, too.

    Raises SettingsError if the address is in use or invalid.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=_is_dual(host))
    except OSError as error:
        # Python appends "(while attempting to bind on address ...)" to the system's message.
        reason = str(error.strerror).partition(" (while")[0]
        hint = "; choose another port with --port" if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(f"cannot listen on {_in_url(host)}:{port}: {reason}{hint}") from error


def url_of(listener: socket.socket, host: str) -> str:
    """Return the URL of a socket that listens at `host`, as programs on this machine can open it."""
    wildcard = host == "0.0.0.0" or _is_dual(host)
    return f"http://{_in_url('127.0.0.1' if wildcard else host)}:{listener.getsockname()[1]}"


def raise_file_limit(report: Callable[[str], None]) -> None:
    """Let this process and its children open as many files and connections as they may, and report a low limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _HIGH_LIMIT if hard == resource.RLIM_INFINITY else min(hard, _HIGH_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < _LOW_LIMIT:
        report(
            f"at most {soft} files and connections can be open at once: raise the limit (`ulimit -n`, or LimitNOFILE"
            " in systemd)"
        )


def _is_dual(host: str) -> bool:
    return host == "::" and socket.has_dualstack_ipv6()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
