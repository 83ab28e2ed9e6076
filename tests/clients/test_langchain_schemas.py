"""langchain-openai with schemas of ordinary Python types, which a grammar cannot follow in full, without strict."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import BadRequestError
from pydantic import AnyUrl, BaseModel, Field, WithJsonSchema

from tests.clients.asking import MODEL
from tests.scripted_model import ScriptedModel, call, serving, turns

ShortPath = Annotated[Path, WithJsonSchema({"type": "string", "format": "path", "maxLength": 12})]


class Folder(BaseModel):
    """A folder with files."""

    kinds: set[Literal["text", "image"]] = Field(max_length=2)
    path: ShortPath


class Cat(BaseModel):
    """A cat."""

    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    """A dog."""

    kind: Literal["dog"]
    name: str | None = None


class Owner(BaseModel):
    """A person with a pet: a union, a map with a pattern, look-around (of a decimal), formats and a circle."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    scores: dict[Annotated[str, Field(pattern=r"^\S+$")], Decimal] = Field(default_factory=dict)
    home: AnyUrl | None = None
    word: re.Pattern[str] | None = None
    friends: list[Owner] = []


OWNER = Owner(pet=Dog(kind="dog", name="Rex"), scores={"a": Decimal("1.5")}, friends=[Owner(pet=Cat(kind="cat"))])


@tool
def tidy(kinds: set[Literal["text", "image"]], path: ShortPath, dry_run: bool = True) -> str:
    """Tidy a folder."""
    return f"{path} is tidy, {sorted(kinds)}"


@tool
def count(limit: Annotated[int, Field(ge=0, le=9)] = 3) -> str:
    """Count to a limit."""
    return str(limit)


def connected(url: str, model: str, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=url, api_key="any", model=model, temperature=0, max_retries=0, **settings)  # type: ignore[arg-type]


@pytest.fixture
def model(real: str) -> ChatOpenAI:
    return connected(real + "/v1", MODEL, max_completion_tokens=120, seed=1)


@pytest.mark.parametrize("schema", [Folder, Folder.model_json_schema()], ids=["class", "schema"])
def test_sets_and_paths_as_a_call(model: ChatOpenAI, schema: Any) -> None:
    """Structured output by function calling has a set and a path, from a class and from its schema."""
    found: Any = model.with_structured_output(schema, method="function_calling").invoke("Name a folder.")
    Folder.model_validate(found if isinstance(found, dict) else found.model_dump())


def test_sets_and_paths_as_json(model: ChatOpenAI) -> None:
    """Structured output by a JSON schema that is not strict has a set and a path."""
    found = model.with_structured_output(Folder.model_json_schema(), method="json_schema").invoke("Name a folder.")
    Folder.model_validate(found)


@pytest.mark.filterwarnings("ignore:Invalid schema for OpenAI's structured output feature")
def test_a_class_as_json_is_strict(model: ChatOpenAI) -> None:
    """For a class, LangChain asks for a strict JSON schema, and the refusal names the place, as OpenAI's does."""
    with pytest.raises(BadRequestError, match=r"\('properties', 'kinds', 'uniqueItems'\)"):
        model.with_structured_output(Folder, method="json_schema").invoke("Name a folder.")


@pytest.mark.parametrize("choice", ["tidy", "any", "required"])
def test_forced_calls(model: ChatOpenAI, choice: str) -> None:
    """A forced call has arguments that the tool accepts, and its result can be sent back."""
    bound = model.bind_tools([tidy, count], tool_choice=choice, parallel_tool_calls=False)
    asked = bound.invoke("Tidy the folder /tmp.")
    (made,) = asked.tool_calls
    assert choice in (made["name"], "any", "required")
    result = {"tidy": tidy, "count": count}[made["name"]].invoke(made)
    again = model.bind_tools([tidy, count]).invoke([("user", "Tidy the folder /tmp."), asked, result])
    assert isinstance(again, AIMessage)


@pytest.fixture
async def scripted() -> AsyncIterator[ChatOpenAI]:
    """Connect to a model that answers with OWNER, as a call if it has tools and as JSON otherwise."""
    owner = OWNER.model_dump(mode="json")
    async with serving(ScriptedModel(turns(call("Owner", **owner), without_tools=json.dumps(owner)))) as url:
        yield connected(url, "mock")


@pytest.mark.parametrize("strict", [None, False])
@pytest.mark.parametrize("stream", [False, True])
async def test_schemas_that_are_followed_in_part(scripted: ChatOpenAI, strict: bool | None, stream: bool) -> None:
    """Unions, maps, look-arounds, unknown formats and circles are served in a call that is not strict."""
    asked = scripted.with_structured_output(Owner, method="function_calling", strict=strict)
    found = [piece async for piece in asked.astream("Who?")][-1] if stream else await asked.ainvoke("Who?")
    assert found == OWNER


async def test_a_json_schema_that_is_followed_in_part(scripted: ChatOpenAI) -> None:
    """The same types are served as a JSON schema that is not strict."""
    schema = {"name": "Owner", "schema": Owner.model_json_schema()}
    found = await scripted.with_structured_output(schema, method="json_schema").ainvoke("Who?")
    assert Owner.model_validate(found) == OWNER
