"""Startup check that the installed uvicorn has the internals which this server relies on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence

import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import Server, ServerState

from subnet.errors import SettingsError

REQUIRED: Mapping[object, Sequence[str]] = {
    # The status lines of response heads.
    httptools_impl: ("STATUS_LINE",),
    # HttpProtocol extends its callbacks, resets its parser after upgrade requests, reads `cycle`, `pipeline`, `headers`
    # and `url` of the current request, and restarts its keep-alive timer.
    httptools_impl.HttpToolsProtocol: (
        *("__init__", "connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
        *(
            "on_body",
            "on_header",
            "on_headers_complete",
            "on_message_begin",
            "on_message_complete",
            "on_response_complete",
        ),
        *(
            "timeout_keep_alive",
            "timeout_keep_alive_handler",
            "timeout_keep_alive_task",
            "_unset_keepalive_if_required",
        ),
        *(
            "app",
            "client",
            "cycle",
            "expect_100_continue",
            "flow",
            "headers",
            "loop",
            "parser",
            "pipeline",
            "transport",
            "url",
        ),
    ),
    # ResponseWriter replaces `send`, and keeps the state that uvicorn reads for keep-alive and pipelining.
    httptools_impl.RequestResponseCycle: (
        *("default_headers", "disconnected", "flow", "keep_alive", "message_event", "more_body", "on_response"),
        *("response_complete", "response_started", "scope", "send", "waiting_for_100_continue"),
    ),
    # Backpressure of large responses and requests.
    FlowControl: ("drain", "resume_reading", "write_paused"),
    # The gateway process handles signals itself, brings its own listener, and decides when to exit.
    Server: ("capture_signals", "force_exit", "server_state", "should_exit", "shutdown", "started"),
    # The running requests, which draining waits for.
    ServerState: ("tasks",),
}
"""Names by module or class. uvicorn documents hardly any of them, and may rename them in any minor version: hence the
pin in pyproject.toml."""


def check_uvicorn(required: Mapping[object, Sequence[str]] = REQUIRED) -> None:
    """Raise SettingsError if a name in `required` does not exist in the installed uvicorn.

    HttpProtocol subclasses uvicorn's HttpToolsProtocol, and ResponseWriter shares state with its RequestResponseCycle:
    this saves an ASGI message and a task switch per token, which uvicorn has no public interface for. Without the check
    a renamed attribute would only show as a failing or hanging request.
    """
    missing = [
        f"{getattr(owner, '__name__', owner)}.{name}"
        for owner, names in required.items()
        for name in sorted({*names} - {*attributes(owner)})
    ]
    if missing:
        raise SettingsError(
            f"uvicorn {uvicorn.__version__} is not supported: it has no {', '.join(missing)}; "
            "install the version that this package requires"
        )


def attributes(owner: object) -> Iterator[str]:
    """Yield the names that a module or class defines, and those that methods of the class access on instances."""
    yield from dir(owner)
    if inspect.isclass(owner):
        for method in vars(owner).values():
            if inspect.isfunction(method):
                yield from method.__code__.co_names
