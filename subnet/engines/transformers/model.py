"""Loading a model by the transformers package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from subnet.engines.transformers.context import TorchContext
from subnet.engines.transformers.pace import PassPace
from subnet.errors import SettingsError
from subnet.models.pretrained_files import first_line


def open_context(folder: Path, threads: int, sequences: int, pace: PassPace) -> TorchContext:
    """A model in the precision of its files, on the accelerator that torch finds, or else on `threads` threads of this
    process (which torch has once for all). No code of the folder is run, and only safetensors are read.

    Raises SettingsError, in one line, for a folder that is not a whole model, or one that does not run.
    """
    context = TorchContext(_load(folder, threads), sequences, pace)
    try:
        context.try_out()
    except Exception as error:  # torch's own errors, and whatever the model's code makes of its configuration
        raise SettingsError(f"the model in {folder} was loaded but does not run: {first_line(error)}") from error
    return context


def _load(folder: Path, threads: int) -> Any:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model = model.to(_device()).eval()
    except Exception as error:  # it raises its own errors, those of torch and of safetensors, and OSError
        raise SettingsError(f"transformers cannot load a model from {folder}: {first_line(error)}") from error
    if missing := sorted(told["missing_keys"]):
        raise SettingsError(f"the model in {folder} is incomplete: {len(missing)} weights missing, e.g. {missing[0]}")
    return model


def _device() -> Any:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
