"""Script that uses litellm as a client, whole and streamed, and prints the errors it raises."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# Otherwise it downloads a table of prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm


def main(url: str, model: str) -> None:
    asked: dict[str, Any] = {
        "model": f"openai/{model}",
        "api_base": url + "/v1",
        "api_key": "any",
        "messages": [{"role": "user", "content": "Name an animal."}],
        "max_tokens": 12,
        "temperature": 0,
        "seed": 1,
        "num_retries": 0,
    }
    whole = litellm.completion(**asked)
    chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    built = litellm.stream_chunk_builder(chunks)
    errors = {}
    for name, wrong in (
        ("long", {"messages": [{"role": "user", "content": "word " * 20_000}]}),
        ("unknown", {"model": "openai/nowhere"}),
        ("wrong", {"temperature": 9}),
    ):
        try:
            litellm.completion(**asked | wrong)
        except Exception as error:
            errors[name] = type(error).__name__
    print(
        json.dumps(
            {
                "whole": whole.choices[0].message.content,
                "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
                "usage": [whole.usage.total_tokens, built.usage.total_tokens],
                "errors": errors,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
