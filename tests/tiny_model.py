"""Models in Hugging Face's form, made on the spot: random weights, but all else as models have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.pretrained import END, START, TEMPLATE, byte_level, folder_of

CONTEXT = 256
# More than the tokenizer has: models pad theirs.
VOCABULARY = 352

_SIZES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 12},
    "gpt2": {},
    "lfm2": {"num_key_value_heads": 2, "block_multiple_of": 8, "layer_types": ["conv", "full_attention"]},
}
KINDS = tuple(_SIZES)
"""All that is remembered; a window of what was; positions that are learnt; a state beside what is remembered."""


def tiny_model(folder: Path, kind: str = "llama", **config: Any) -> Path:
    """A model of two layers with a byte-level tokenizer; its weights are always the same. In double precision, so that
    no answer hangs on how sums are rounded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    size = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": CONTEXT}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.4}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    torch.set_num_threads(1)
    torch.manual_seed(7)
    made = AutoConfig.for_model(kind, **(size | layers | ends | _SIZES[kind] | config))
    AutoModelForCausalLM.from_config(made, dtype=torch.float64).save_pretrained(folder)
    tokenizer_config = {"bos_token": START, "eos_token": END, "chat_template": TEMPLATE}
    return folder_of(folder, byte_level(), tokenizer_config=tokenizer_config)
