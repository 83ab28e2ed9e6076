"""Loading a model by the transformers package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from subnet.errors import SettingsError


def load_model(folder: Path, threads: int) -> Any:
    """In the precision of its files, on the accelerator that torch finds, or else on `threads` threads of this process
    (which torch has once for all). No code of the folder is run, and only safetensors are read.

    Raises SettingsError, in one line, for a folder that is not a whole model.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model = model.to(_device()).eval()
    except Exception as error:  # it raises its own errors, those of torch and of safetensors, and OSError
        raise SettingsError(f"{folder} is not a model that transformers can load: {one_line(error)}") from error
    if missing := sorted(told["missing_keys"]):
        raise SettingsError(f"{folder} is not a whole model: it lacks {len(missing)} weights, {missing[0]} among them")
    return model


def one_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _device() -> Any:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
