"""Read a Hugging Face folder from disk: never the network, never code from the folder, never pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lang1.errors import InputError


def load_model(folder: Path, config: Any = None) -> Any:
    """The causal LM of a folder, fp32 on the CPU, in evaluation mode; `config`: in place of the folder's own.

    Raises InputError when it cannot be read, or lacks weights that transformers would draw at random.
    """
    import torch
    from transformers import AutoModelForCausalLM

    _require_folder(folder)
    hide_progress_bars()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder}: not a causal language model that transformers reads "
            f"({type(error).__name__}); give a Hugging Face folder with safetensors"
        ) from None
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputError(f"{folder}: weights lack {', '.join(missing[:3])}; give the folder of a whole causal model")
    return model.eval()


def load_config(folder: Path) -> Any:
    """The model configuration of a folder. Raises InputError when it cannot be read."""
    from transformers import AutoConfig

    _require_folder(folder)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: its config.json cannot be read ({type(error).__name__})") from None


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder. Raises InputError when it cannot be read."""
    from transformers import AutoTokenizer

    _require_folder(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder}: its tokenizer cannot be read ({type(error).__name__}); "
            "a tokenizer.json or tokenizer.model belongs there"
        ) from None


def hide_progress_bars() -> None:
    """transformers draws a bar for every load and save; a log is no place for them."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _require_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        raise InputError(f"{folder}: not a Hugging Face folder (no config.json); give the folder of an exported model")
