"""Messages -> text -> token ids. Pure; safe to use from several threads at once."""

from adapter.prompt.chat_template import DEFAULT_TEMPLATE, ChatTemplate
from adapter.prompt.guard import Guard
from adapter.prompt.render import Conversation, Prompt, own_template, write
from adapter.prompt.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "DEFAULT_TEMPLATE",
    "ChatTemplate",
    "Conversation",
    "Guard",
    "Prompt",
    "Tokenizer",
    "load_tokenizer",
    "own_template",
    "write",
]
