"""Addresses to listen on, and the number of connections."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from subnet.errors import SettingsError
from subnet.listening import bind, url_of


def _connects(host: str, port: int) -> bool:
    try:
        with closing(socket.create_connection((host, port), timeout=10)):
            return True
    except ConnectionRefusedError:
        return False


needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")


@pytest.mark.parametrize(
    ("host", "reachable"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("localhost", {"127.0.0.1"}),
        pytest.param("::1", {"::1"}, marks=needs_ipv6),
        pytest.param("::", {"::1", "127.0.0.1"}, marks=needs_ipv6),
    ],
)
def test_addresses(host: str, reachable: set[str]) -> None:
    """A wildcard of IPv6 includes IPv4, and the URL is one that can be opened."""
    with bind(host, 0) as listener:
        port = listener.getsockname()[1]
        assert {address for address in ("127.0.0.1", "::1") if _connects(address, port)} == reachable
        url = urlsplit(url_of(listener, host))
        assert url.port == port
        assert _connects(url.hostname or "", port)


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_an_address_in_use(host: str) -> None:
    """The error names the address as in a URL."""
    with bind(host, 0) as listener:
        address = url_of(listener, host).removeprefix("http://")
        with pytest.raises(SettingsError, match="Address already in use; choose another port with --port") as caught:
            bind(host, listener.getsockname()[1])
        assert f"cannot listen on {address}: " in str(caught.value)


_PROGRAM = """\
import json, resource, sys
from subnet.listening import raise_file_limit
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
lines = []
raise_file_limit(lines.append)
print(json.dumps([resource.getrlimit(resource.RLIMIT_NOFILE), lines]))
"""


@pytest.mark.parametrize(("soft", "hard", "says"), [(256, 8192, False), (256, 1024, True), (8192, 8192, False)])
def test_the_limit_of_open_files(soft: int, hard: int, says: bool) -> None:
    """The limit is raised to the hard one; if that is low, it is said once."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("the limit here is lower")
    command = [sys.executable, "-c", _PROGRAM, str(soft), str(hard)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    limits, lines = json.loads(done.stdout)
    assert limits == [hard, hard]
    assert [line.startswith(f"at most {hard} files and connections") for line in lines] == [True] * says
