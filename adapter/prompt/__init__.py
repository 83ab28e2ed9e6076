"""Messages -> text -> token ids. Pure; safe to use from several threads at once."""

from adapter.prompt.chat_template import DEFAULT_TEMPLATE, ChatTemplate
from adapter.prompt.guard import Guard
from adapter.prompt.tokenizer import Tokenizer, load_tokenizer

__all__ = ["DEFAULT_TEMPLATE", "ChatTemplate", "Guard", "Tokenizer", "load_tokenizer"]
