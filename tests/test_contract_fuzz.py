"""Requests made up from our own OpenAPI document, right ones and wrong ones: no failure of ours, no hang.

A hundred for each endpoint, half of them right; thousands with

    make test ARGS="tests/test_contract_fuzz.py --hypothesis-profile thorough --timeout 0"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from adapter.routes.operations import OPERATIONS, Operation
from tests.checked import check
from tests.processes import adapter_up
from tests.relay import Relay

SECONDS = 20
"""No answer takes longer: nodes that only echo have nothing to think about, and answers are short."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

ASKED = [operation for operation in OPERATIONS if operation.request is not None]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """In front of a gateway with a node that echoes."""
    flags = ("--engine", "echo", "--local-nodes", "1", "--context-length", "256", "--default-max-tokens", "4")
    with adapter_up(*flags, "--access-log", "false", directory=str(tmp_path_factory.mktemp("up"))) as running:
        with Relay(running.url) as relay:
            yield relay
        assert "Traceback" not in "".join(running.lines)


@pytest.fixture(scope="module")
def described(relay: Relay) -> Any:
    return schemathesis.openapi.from_url(relay.url + "/openapi.json")


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("operation", ASKED, ids=lambda operation: operation.id)
def test_whatever_is_asked(described: Any, relay: Relay, operation: Operation, mode: GenerationMode) -> None:
    """The answer is as the document says, and errors have OpenAI's envelope."""

    @settings(suppress_health_check=list(HealthCheck), max_examples=settings().max_examples // 2)
    @given(described[operation.path][operation.method].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case[Any]) -> None:
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
            case.body["model"] = "echo"  # by chance it would never be
        response = case.call(timeout=SECONDS)
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400:
            error = response.json()
            assert error.keys() == {"error"}
            check(error)

    ask()
    relay.check()
