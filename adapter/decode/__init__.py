"""Decoding of answers: token ids to text to events. Decoders keep state, so each choice has its own."""

from adapter.decode.detokenizer import Detokenizer, TokenTable, create_detokenizer

__all__ = ["Detokenizer", "TokenTable", "create_detokenizer"]
