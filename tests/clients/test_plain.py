"""Clients that know nothing of OpenAI's API."""

from __future__ import annotations

import json
import subprocess

import httpx

from tests.clients.asking import ask


def test_curl(real: str) -> None:
    """curl gets a JSON answer, and events that end with [DONE]."""

    def curl(**more: object) -> str:
        body = json.dumps(ask(**more))
        command = ["curl", "-sN", f"{real}/v1/chat/completions", "-H", "content-type: application/json", "-d", body]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert json.loads(curl())["choices"][0]["message"]["content"]
    assert curl(stream=True).endswith("data: [DONE]\n\n")


def test_health(real: str) -> None:
    """A running gateway is alive and ready, and serves its OpenAPI document."""
    assert httpx.get(real + "/healthz").status_code == 200
    assert httpx.get(real + "/readyz").status_code == 200
    assert httpx.get(real + "/openapi.json").json()["openapi"].startswith("3.")
