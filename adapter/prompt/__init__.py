"""Conversion of messages to prompt text and token ids. Pure and thread-safe."""

from adapter.prompt.chat_template import DEFAULT_TEMPLATE, ChatTemplate, TemplateTooSlow
from adapter.prompt.guard import Guard
from adapter.prompt.metered.budget import Budget
from adapter.prompt.probes import QUESTION, REASONING_ON
from adapter.prompt.render import Conversation, Prompt, custom_template, render_conversation
from adapter.prompt.tokenizer import EncodeOnNode, Tokenizer, load_tokenizer

__all__ = [
    "DEFAULT_TEMPLATE",
    "QUESTION",
    "REASONING_ON",
    "Budget",
    "ChatTemplate",
    "Conversation",
    "EncodeOnNode",
    "Guard",
    "Prompt",
    "TemplateTooSlow",
    "Tokenizer",
    "custom_template",
    "load_tokenizer",
    "render_conversation",
]
