"""Tokens that end a turn by their text, whatever a model's files declare."""

from __future__ import annotations

from collections.abc import Mapping

# Texts that llama.cpp treats as end of generation, whatever the file declares (src/llama-vocab.cpp, special_eog_ids).
_END_TEXTS = frozenset(
    [
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>", "<|eom_id|>"),
        *("<|end_of_text|>", "<end_of_turn>", "</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>"),
        *("<|flush|>", "<|calls|>", "<eos>", "<turn|>", "<|tool_response>", "[e~["),
        "<｜end▁of▁sentence｜>",  # noqa: RUF001
    ]
)
# In gpt-oss's Harmony format a turn consists of several messages, and <|end|> ends a message, not a turn.
_HARMONY_END_TEXTS = {"<|return|>", "<|call|>"}
_HARMONY_MESSAGE_END = {"<|end|>"}


def end_tokens(tokens: Mapping[str, int]) -> list[int]:
    """Return those of `tokens`, ids by text, whose text marks the end of a turn, in ascending order.

    A GGUF file and a folder in Hugging Face format of the same model declare different ones, and stop at the same.
    """
    texts = _END_TEXTS - _HARMONY_MESSAGE_END if tokens.keys() >= _HARMONY_END_TEXTS else _END_TEXTS
    return sorted(tokens[text] for text in texts & tokens.keys())
