"""Requests generated from our own OpenAPI document, valid and invalid: no internal error, and every response matches
the schema.

About five thousand requests, most of which are the same in each run. Many more random ones with

    make test ARGS="tests/adapter/api/test_contract_fuzz.py --hypothesis-profile thorough --timeout 0"
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from adapter.api.common.pipeline import Route
from adapter.api.routes import ROUTES
from tests.checked import check, check_events
from tests.processes import adapter_up

SECONDS = 20
"""Timeout of a request. Echo nodes are fast, and answers are short."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]


class FuzzedOperation:
    """One operation of a gateway. Its responses are validated against the gateway's OpenAPI document and OpenAI's
    types.
    """

    def __init__(self, described: Any, operation: Route) -> None:
        self._document = described.raw_schema
        self._iter_edges = described.iter_coverage_cases
        self._config = described.config
        self._operation = operation
        self.described = described[operation.path][operation.method.lower()]

    def edges(self) -> Iterator[Any]:
        """Yield requests in which one value after another is at a bound, beyond it, or of another type."""
        config = self._config.generation_for(operation=self.described)
        yield from self._iter_edges(self.described, generation_modes=list(GenerationMode), generation_config=config)

    def ask(self, case: Any) -> int:
        """Send a request, and again as a stream if the operation can be streamed; validate the responses and return the
        status.
        """
        body = case.body if isinstance(case.body, dict) else {}
        if isinstance(body.get("model"), str):
            body["model"] = "echo"  # a random string would never be it
        if body.get("prompt") == "":
            body["prompt"] = "Once"  # the echo model has no BOS token for an empty prompt
        status = self._ask(case)
        if status == 200 and self._operation.stream is not None and not body.get("stream"):
            self._ask(self.case({**body, "stream": True}))
        return status

    def case(self, body: dict[str, Any]) -> Any:
        return self.described.Case(body=body, media_type="application/json")

    def _ask(self, case: Any) -> int:
        response = case.call(timeout=SECONDS)
        case.validate_response(response, checks=CHECKS)
        if "text/event-stream" in response.headers.get("content-type", [""])[0]:
            check_events(response.text)
            for line in response.text.split("\n"):
                if line.startswith("data: {"):
                    self._event.validate(json.loads(line.removeprefix("data: ")))
        elif response.content:
            case.validate_response(response, checks=[response_schema_conformance])
            check(response.json())
            assert response.status_code < 400 or response.json().keys() in ({"error"}, {"type", "error", "request_id"})
        return int(response.status_code)

    @cached_property
    def _event(self) -> Draft202012Validator:
        """Validator of one streamed event. schemathesis would validate the whole stream against the event's schema."""
        operation = self._document["paths"][self._operation.path][self._operation.method.lower()]
        kind = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
        return Draft202012Validator({**kind, "components": self._document["components"]})


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The OpenAPI document of a gateway with an unpaced echo node."""
    directory: Path = tmp_path_factory.mktemp("up")
    (directory / "node.toml").write_text("echo_rate = 0.0\n")
    flags = ("--engine", "echo", "--local-nodes", "1", "--context-length", "256", "--default-max-tokens", "4")
    with adapter_up(*flags, "--access-log", "false", directory=str(directory)) as running:
        yield schemathesis.openapi.from_url(running.url + "/openapi.json")
        assert "Traceback" not in "".join(running.lines)


@pytest.fixture(params=[route for route in ROUTES if route.request], ids=lambda route: route.id)
def operation(described: Any, request: pytest.FixtureRequest) -> FuzzedOperation:
    return FuzzedOperation(described, request.param)


def test_values_at_their_bounds(operation: FuzzedOperation) -> None:
    """Values at and beyond their bounds, one at a time, and valid values in any combination, get responses that match
    the schema.
    """
    right = [case.body for case in operation.edges() if operation.ask(case) == 200 and isinstance(case.body, dict)]
    values: dict[str, list[Any]] = {}
    for name, value in (member for body in right for member in body.items()):
        if value is not None and name != "n":  # hundreds of choices take seconds to check
            values.setdefault(name, []).append(value)
    some = st.lists(st.sampled_from(sorted(values)), max_size=6) if values else st.nothing()

    @settings(suppress_health_check=list(HealthCheck))
    @given(some.flatmap(lambda names: st.fixed_dictionaries({name: st.sampled_from(values[name]) for name in names})))
    def ask(body: dict[str, Any]) -> None:
        operation.ask(operation.case({**right[0], **body}))

    if values:
        ask()


@pytest.mark.parametrize("mode", GenerationMode)
def test_random_requests(operation: FuzzedOperation, mode: GenerationMode) -> None:
    """Random requests, valid and invalid, get responses that match the schema."""

    @settings(suppress_health_check=list(HealthCheck), max_examples=settings().max_examples // 4)
    @given(operation.described.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        operation.ask(case)

    ask()
