"""Script that uses LlamaIndex for chats and completions, streamed and not, and for a forced tool call."""

from __future__ import annotations

import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def weather(days: int) -> str:
    """The weather of the next days."""
    return f"{days} days of rain"


def main(url: str, model: str) -> None:
    settings = {"temperature": 0.0, "max_retries": 0, "additional_kwargs": {"seed": 1}, "context_window": 2048}
    place = {"model": model, "api_base": url + "/v1", "api_key": "any"}
    chats = OpenAILike(**place, **settings, is_chat_model=True, is_function_calling_model=True, max_tokens=12)
    texts = OpenAILike(**place, **settings, is_chat_model=False, max_tokens=12)
    asked = [ChatMessage(role="user", content="Name an animal.")]
    callers = chats.model_copy(update={"max_tokens": 32})
    tool = FunctionTool.from_defaults(weather)
    called = callers.chat_with_tools([tool], chat_history=asked, tool_required=True, allow_parallel_tool_calls=False)
    (call,) = callers.get_tool_calls_from_response(called)
    print(
        json.dumps(
            {
                "chat": [
                    chats.chat(asked).message.content,
                    "".join(piece.delta or "" for piece in chats.stream_chat(asked)),
                ],
                "complete": [
                    texts.complete("One, two,").text,
                    "".join(piece.delta or "" for piece in texts.stream_complete("One, two,")),
                ],
                "call": [call.tool_name, call.tool_kwargs],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
