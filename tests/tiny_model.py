"""Small models in Hugging Face format with random weights, created on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.pretrained import END, START, TEMPLATE, byte_level, folder_of

CONTEXT = 256
# More than the tokenizer's tokens, because models pad their vocabulary.
VOCABULARY = 352

_SIZES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 12},
    "gpt2": {},
    "lfm2": {"num_key_value_heads": 2, "block_multiple_of": 8, "layer_types": ["conv", "full_attention"]},
}
ARCHITECTURES = tuple(_SIZES)
"""Full attention; a sliding window; learned positions; recurrent state in addition to attention."""


def tiny_model(folder: Path, architecture: str = "llama", **config: Any) -> Path:
    """Create a model of two layers with a byte-level tokenizer in `folder`. Its weights are always the same.

    It has double precision, so that no answer depends on rounding.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    size = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": CONTEXT}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.4}
    special_tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    torch.set_num_threads(1)
    torch.manual_seed(7)
    model_config = AutoConfig.for_model(
        architecture, **(size | layers | special_tokens | _SIZES[architecture] | config)
    )
    AutoModelForCausalLM.from_config(model_config, dtype=torch.float64).save_pretrained(folder)
    tokenizer_config = {"bos_token": START, "eos_token": END, "chat_template": TEMPLATE}
    return folder_of(folder, byte_level(), tokenizer_config=tokenizer_config)
