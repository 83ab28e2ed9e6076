"""LangChain's standard tests of chat models, for a gateway at GATEWAY_URL. Run by pytest in .venv-agents."""

from __future__ import annotations

import os
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestGateway(ChatModelIntegrationTests):  # type: ignore[misc]
    """All features that the gateway has without a model for images."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        place = {"base_url": os.environ["GATEWAY_URL"], "api_key": "any", "model": "mock"}
        return {**place, "stream_usage": True, "max_retries": 0}

    @property
    def chat_model_override_value(self) -> str:
        return "mock"

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True
