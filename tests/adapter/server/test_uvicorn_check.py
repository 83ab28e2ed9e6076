"""Check of uvicorn's internals at startup."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from adapter.server import protocol, response_writer
from adapter.server.uvicorn_check import REQUIRED, attributes, check_uvicorn
from subnet.errors import SettingsError


def test_the_installed_uvicorn() -> None:
    """The uvicorn that is installed for the tests passes the check."""
    check_uvicorn()


def test_a_missing_attribute() -> None:
    """An attribute that uvicorn does not have fails the check, with its name and uvicorn's version."""
    with pytest.raises(
        SettingsError, match=r"uvicorn \d+\.\d+\S* is not supported: it has no RequestResponseCycle.sendall;"
    ):
        check_uvicorn({RequestResponseCycle: ("send", "sendall")})


def names_used(module: object, owner: str) -> set[str]:
    """Return the attributes of `owner`, such as `self.cycle` or `super()`, that the code of a module uses."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if re.fullmatch(owner, ast.unparse(node.value))}


@pytest.mark.parametrize(
    ("module", "expression", "owner"),
    [
        (protocol, r"self|super\(\)", HttpToolsProtocol),
        (protocol, r"self\.cycle|cycle", RequestResponseCycle),
        (response_writer, r"self\._cycle|cycle", RequestResponseCycle),
    ],
)
def test_the_check_is_complete(module: object, expression: str, owner: type) -> None:
    """Every attribute of uvicorn's that the server uses is part of the check."""
    assert names_used(module, expression) & {*attributes(owner)} <= {*REQUIRED[owner]}
