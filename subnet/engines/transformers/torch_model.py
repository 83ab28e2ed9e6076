"""Loading of models with the transformers package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from subnet.engines.transformers.torch_context import TorchContext
from subnet.errors import SettingsError
from subnet.models.pretrained_files import first_line


def open_context(folder: Path, threads: int, sequences: int) -> TorchContext:
    """Load the model in `folder`, in the precision of its files, and return its context for `sequences` sequences.

    The model runs on torch's accelerator, or else on `threads` CPU threads; that number applies to the whole process.
    Code in the folder is never executed, and weights are read from safetensors only. Raises SettingsError, in one
    line, if the model is incomplete or does not run.
    """
    context = TorchContext(_load(folder, threads), sequences)
    try:
        context.warm_up()
    except Exception as error:  # errors of torch, and of the model's code for an inconsistent configuration
        raise SettingsError(f"the model in {folder} was loaded but does not run: {first_line(error)}") from error
    return context


def _load(folder: Path, threads: int) -> Any:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    try:
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model = model.to(_device()).eval()
    except Exception as error:  # errors of the package, of torch and of safetensors, and OSError
        raise SettingsError(f"transformers cannot load a model from {folder}: {first_line(error)}") from error
    if missing := sorted(loading_info["missing_keys"]):
        raise SettingsError(f"the model in {folder} is incomplete: {len(missing)} weights missing, e.g. {missing[0]}")
    return model


def _device() -> Any:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
