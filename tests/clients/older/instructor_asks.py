"""Script that uses instructor with tools and with a JSON schema, whole and partial."""

from __future__ import annotations

import json
import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field


class Town(BaseModel):
    """A place where people live."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Z][a-z]{2,11}$")
    size: int = Field(ge=1, le=999)


def main(url: str, model: str) -> None:
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "Name a town."}],
        "max_tokens": 48,
        "temperature": 0,
        "seed": 1,
        "max_retries": 0,
    }
    found = {}
    for mode in (instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(OpenAI(base_url=url + "/v1", api_key="any", max_retries=0), mode=mode)
        whole = client.chat.completions.create(response_model=Town, **asked)
        *_, last = client.chat.completions.create_partial(response_model=Town, **asked)
        found[mode.value] = [whole.model_dump(), last.model_dump()]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
