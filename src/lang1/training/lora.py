"""Low-rank adapters in place of full finetuning, through PEFT (Appendix I): r 8, alpha 16, dropout 0.05 on q and v.

The adapters stand inside the model's own class, so the loop, the packs and the early stop know nothing of them. The
base stays frozen and is in no checkpoint; the result is written twice, merged as a plain Hugging Face folder and as a
PEFT adapter beside it. First weights are drawn by the seed.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from lang1 import runs
from lang1.config import LoraConfig
from lang1.errors import InputError

ADAPTER = "adapter"
"""folder of the adapter, in the folder of the merged model"""


def add_adapters(model: Any, cfg: LoraConfig, seed: int) -> Any:
    """PEFT's model around `model`, in which everything but the adapters is frozen; `get_base_model()` is the causal LM.

    Raises InputError for target modules that the model does not have.
    """
    import peft

    _check_targets(model, cfg.targets)
    made = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=cfg.r,
        lora_alpha=cfg.alpha,  # type: ignore[arg-type]
        lora_dropout=cfg.dropout,
        target_modules=list(cfg.targets),
        bias="none",
        fan_in_fan_out=_is_transposed(model, cfg.targets),
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an older name
        torch.manual_seed(seed)
        return peft.get_peft_model(model, made)


def write_adapter(wrapped: Any, out: Path, scratch: Path) -> Path:
    """The adapter as PEFT loads it: adapter_config.json and adapter_model.safetensors in `out`."""
    temporary = scratch / ADAPTER
    shutil.rmtree(temporary, ignore_errors=True)
    # embeddings are never adapted, and looking whether they were would ask a hub for the base's configuration
    wrapped.save_pretrained(temporary, safe_serialization=True, save_embedding_layers=False)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        with runs.atomic_path(out / name) as path:
            shutil.copyfile(temporary / name, path)
    shutil.rmtree(temporary)
    return out


def merged(wrapped: Any) -> Any:
    """The causal LM with the adapters added into its weights; `wrapped` is used up."""
    return wrapped.merge_and_unload(safe_merge=True)


def _check_targets(model: Any, targets: tuple[str, ...]) -> None:
    named = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)}
    head = model.get_output_embeddings()
    named -= {name.rpartition(".")[2] for name, module in model.named_modules() if module is head}
    missing = [target for target in targets if target not in named]
    if missing:
        raise InputError(
            f"finetune.lora.targets: {', '.join(missing)}: no such module in {type(model).__name__}; "
            f"its linear modules are {', '.join(sorted(named))}"
        )


def _is_linear(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def _is_transposed(model: Any, targets: tuple[str, ...]) -> bool:
    """GPT-2 keeps its matrices the other way round."""
    return any(
        type(module).__name__ == "Conv1D"
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in targets
    )
