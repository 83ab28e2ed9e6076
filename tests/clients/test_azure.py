"""OpenAI's client for Azure, with deployments in the path and the key in `api-key`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import AzureOpenAI, NotFoundError, OpenAI

from tests.clients.asking import MODEL, ask, joined


@pytest.fixture
def azure(real: str) -> Iterator[AzureOpenAI]:
    with AzureOpenAI(azure_endpoint=real, api_key="any", api_version="2024-10-21", max_retries=0) as client:
        yield client


def test_chat(azure: AzureOpenAI) -> None:
    """A chat completion, streamed and not, is that of the deployment in the path."""
    whole = azure.chat.completions.create(**ask())
    assert whole.model == MODEL
    assert joined(list(azure.chat.completions.create(**ask(stream=True)))) == whole.choices[0].message.content


def test_completions_and_embeddings(azure: AzureOpenAI) -> None:
    """Text completions and embeddings work below a deployment, too."""
    text = azure.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=4)
    assert text.choices[0].text
    assert len(azure.embeddings.create(model=MODEL, input=["one", "two"]).data) == 2


def test_a_deployment_of_the_client(real: str) -> None:
    """A client for one deployment reaches it whatever model the request names, as at Azure."""
    with AzureOpenAI(
        azure_endpoint=real, azure_deployment=MODEL, api_key="any", api_version="2024-10-21", max_retries=0
    ) as client:
        assert client.chat.completions.create(**ask(model="gpt-4o")).model == MODEL
    with AzureOpenAI(
        azure_endpoint=real, azure_deployment="nowhere", api_key="any", api_version="2024-10-21", max_retries=0
    ) as client:
        with pytest.raises(NotFoundError, match="'nowhere'"):
            client.chat.completions.create(**ask())


@pytest.mark.parametrize("base", ["", "/v1/v1", "/openai/v1", "/openai"])
def test_other_base_urls(real: str, base: str) -> None:
    """OpenAI's client works with the base URLs that people enter, and lists the models at each of them."""
    with OpenAI(base_url=real + base, api_key="any", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).id == MODEL
        assert client.chat.completions.create(**ask()).model == MODEL
