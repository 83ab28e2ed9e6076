"""A model in Hugging Face's form, made on the spot: random weights, but all else as models have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.pretrained import END, START, TEMPLATE, byte_level, folder_of

CONTEXT = 256
# More than the tokenizer has: models pad theirs.
VOCABULARY = 352


def tiny_model(folder: Path, **config: Any) -> Path:
    """A Llama of two layers with a byte-level tokenizer; its weights are always the same."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    common = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "initializer_range": 0.4}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(**size, **heads, **common, **ends, **config))
    model.save_pretrained(folder)
    tokenizer_config = {"bos_token": START, "eos_token": END, "chat_template": TEMPLATE}
    return folder_of(folder, byte_level(), tokenizer_config=tokenizer_config)
