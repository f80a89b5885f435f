"""What finetuning starts from: a Hugging Face folder, a GGUF file, or a checkpoint of `lang1 pretrain` at any point.

Any causal LM that transformers reads will do; dropout that its configuration asks for is switched off, so that nothing
but LoRA's own draws from torch's generator and a resumed run repeats the bytes of one that was not stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.models.build import build_from_config
from lang1.models.export import FACTS, TOKENIZER, check_hashes, is_checkpoint, read_checkpoint
from lang1.models.load import (
    check_vocabulary,
    load_config,
    load_model,
    load_tokenizer,
    refuse_encoder,
    without_dropout,
)
from lang1.models.origin import NO_PRETRAINING, Pretraining, pretraining_of, read_pretraining


@dataclass(frozen=True)
class BaseModel:
    """A model before finetuning, on disk."""

    folder: Path
    is_random: bool
    """only configuration and tokenizer are taken"""

    @property
    def is_checkpoint(self) -> bool:
        """A `step-XXXXXXXX` folder of lang1 pretrain."""
        return is_checkpoint(self.folder)

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer's files are; the GGUF file itself."""
        return self.folder.resolve().parent / TOKENIZER if self.is_checkpoint else self.folder

    @property
    def pretraining(self) -> Pretraining:
        """The text that its weights learned language from."""
        if self.is_random:
            return NO_PRETRAINING
        return (
            pretraining_of(runs.read_json(self.folder / FACTS)) if self.is_checkpoint else read_pretraining(self.folder)
        )

    @property
    def seen(self) -> Path | None:
        """Rows of a finetuning before this one."""
        path = self.folder / "seen.parquet"
        return path if path.exists() and not self.is_random else None

    @property
    def facts(self) -> dict[str, Any]:
        """What the model card says of it beside what every finetuned model says."""
        return {}

    def tokenizer(self) -> Any:
        """Its tokenizer. Raises InputError."""
        return load_tokenizer(self.tokenizer_folder)

    def load(self, seed: int, is_empty: bool = False) -> Any:
        """The causal LM, fp32 on the CPU; `is_empty`: its modules alone, without weights.

        Raises InputError where it cannot be had, or is not of its tokenizer.
        """
        refuse_encoder(self.folder)
        config = without_dropout(load_config(self.folder))
        if is_empty:
            return _modules(config)
        if self.is_random:
            model = build_from_config(config, seed)
        elif self.is_checkpoint:
            check_hashes(self.folder)
            model = read_checkpoint(self.folder)
        else:
            model = load_model(self.folder, config)
            _forget_quantiser(model)
        check_vocabulary(self.folder, model, self.tokenizer())
        return model


def _forget_quantiser(model: Any) -> None:
    """The weights of a GGUF file are fp32 by now; transformers would not save a model that it calls quantised."""
    if getattr(model, "hf_quantizer", None) is not None:
        model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config


def _modules(config: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
