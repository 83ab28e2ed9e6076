"""Conversion of a GGUF file to a folder in Hugging Face format, in the virtual environment of the engines."""

from __future__ import annotations

from pathlib import Path

# The weights are rounded to what vLLM computes in on a CPU.
_DTYPE = "bfloat16"


def convert(gguf: Path, folder: Path) -> None:
    """Write config, weights, tokenizer and chat template of the model in `gguf` to `folder`."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=_DTYPE)
    # Transformers takes a model from a GGUF file for a quantised one, and does not save it.
    del model.config.quantization_config
    # Nor does it write what class the model is, without which `transformers serve` cannot load it.
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    GenerationConfig.from_model_config(model.config).save_pretrained(folder)
    own = {name: tensor for name, tensor in model.state_dict().items() if not _is_tied(model.config, name)}
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})


def _is_tied(config: object, name: str) -> bool:
    return name == "lm_head.weight" and bool(getattr(config, "tie_word_embeddings", False))
