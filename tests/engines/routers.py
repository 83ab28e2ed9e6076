"""Routers that pass requests on to servers behind them: LiteLLM's proxy and Shepherd Model Gateway."""

from __future__ import annotations

import json
from pathlib import Path

from tests.engines.server import NAME, Server
from tests.processes import free_port

KEY = "sk-test"
"""API key of the proxy."""
SCRIPTED = "scripted"
"""Name of the model of which a scripted provider makes the answers."""


class LiteLlmProxy(Server):
    """LiteLLM's proxy, in front of `backend` and of a scripted provider at a port."""

    ready = "/health/liveliness"

    def __init__(self, backend: Server, folder: Path, provider_port: int) -> None:
        models = {
            NAME: {"model": f"hosted_vllm/{backend.name}", "api_base": f"{backend.url}/v1", "api_key": "none"},
            SCRIPTED: {
                "model": f"openai/{SCRIPTED}",
                "api_base": f"http://127.0.0.1:{provider_port}/v1",
                "api_key": "none",
            },
        }
        config = {
            "model_list": [{"model_name": name, "litellm_params": params} for name, params in models.items()],
            # Else one failure of a backend would be its answer to all requests of the next seconds.
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
            "general_settings": {"master_key": KEY},
        }
        path = folder / "litellm.yaml"
        path.write_text(json.dumps(config))  # which is YAML, too
        environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
        super().__init__("litellm", "--config", str(path), "--telemetry", "False", environ=environ)


class Smg(Server):
    """Shepherd Model Gateway, in front of `backend`."""

    def __init__(self, backend: Server) -> None:
        metrics = ("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()))
        super().__init__("smg", "launch", "--worker-urls", backend.url, *metrics)
