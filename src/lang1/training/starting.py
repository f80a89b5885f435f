"""What pretraining starts from: a preset with fresh weights, or the weights of any Hugging Face causal LM (init_from).

Continued pretraining keeps the model's own vocabulary, so the tokens must have been made with its tokenizer
(`tokenize.tokenizer: DIR`): the two are compared entry by entry before any weight is read. Dropout is switched off, so
that nothing draws from torch's generator and a resumed run repeats the bytes of one that was not stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lang1 import runs
from lang1.config import PretrainConfig
from lang1.corpus import tokenizer
from lang1.corpus.shards import Shards
from lang1.errors import InputError
from lang1.models.build import build_model
from lang1.models.encoder import build_encoder, decoder_preset, encoder_shape, is_encoder_preset, special_ids
from lang1.models.export import TOKENIZER, is_checkpoint
from lang1.models.fast import use_fast_attention
from lang1.models.head import has_linear_head
from lang1.models.load import load_config, load_model, load_tokenizer, without_dropout
from lang1.models.origin import Pretraining, continued_on, pretrained_on
from lang1.models.presets import PRESETS, shape_of
from lang1.training.masked import Masking

_AGAIN = "run tokenize again with --force"


@dataclass(frozen=True)
class Start:
    """A model before its first step."""

    model: Any
    length: int
    """positions a sequence"""
    is_linear_head: bool
    """the loss may be taken in chunks (models/head.py)"""
    facts: dict[str, Any]
    """what the model card says of it"""
    masking: Masking | None = None
    """what an encoder is asked (masked.py); null: the next token"""

    @property
    def block(self) -> int:
        """Tokens of text a sequence: an encoder's [CLS] and last [SEP] take two positions."""
        return self.length - (0 if self.masking is None else 2)


def start_model(
    cfg: PretrainConfig, shards: Shards, seed: int, dtype: torch.dtype, device: torch.device | None = None
) -> Start:
    """The model of `cfg` for these shards, fp32 on the CPU; `device` is where it will train.

    Raises InputError where tokenizer, shards and model do not belong together, ConfigError for a shape that no Llama
    has.
    """
    check_tokenizer(shards)
    if is_encoder_preset(cfg.preset):
        ids, shape = special_ids(shards.folder / TOKENIZER), encoder_shape(cfg.preset, cfg.shape)
        length = cfg.context_length or shape.context_length
        encoder = build_encoder(cfg.preset, ids, seed, length, cfg.shape)
        use_fast_attention(encoder, dtype, device)
        facts = {"preset": cfg.preset, "shape": shape.source, "objective": "masked tokens"}
        return Start(encoder, length, False, facts, Masking(ids, shards.separator_id, cfg.mask_share, seed))
    if cfg.init_from is not None:
        return _continue(cfg, Path(cfg.init_from), shards, dtype, device)
    preset = decoder_preset(cfg.preset)
    length = cfg.context_length or PRESETS[preset].context_length
    model = build_model(preset, shards.vocab_size, seed, length, shards.bos_id, shards.eos_id, overrides=cfg.shape)
    use_fast_attention(model, dtype, device)
    return Start(model, length, True, {"preset": preset, "shape": shape_of(preset, cfg.shape).source})


def origin_of(cfg: PretrainConfig, tokens: Path, sources: tuple[str, ...]) -> Pretraining:
    """What the card says of the text that the model learns from."""
    return (
        pretrained_on(tokens, sources) if cfg.init_from is None else continued_on(Path(cfg.init_from), tokens, sources)
    )


def check_tokenizer(shards: Shards) -> None:
    """Raise InputError unless the tokenizer in the tokens folder is the one that its shards were made with."""
    folder = shards.folder / TOKENIZER
    listed = runs.read_manifest(shards.folder).get("files", {})
    for name in ("tokenizer.json", "tokenizer.model"):
        wanted = listed.get(f"{TOKENIZER}/{name}", {}).get("sha256")
        if wanted and (not (folder / name).is_file() or runs.sha256_file(folder / name) != wanted):
            raise InputError(
                f"{folder / name}: is not the one that {runs.MANIFEST} lists; run tokenize again with --force"
            )
    found = tokenizer.open_encoder(folder)
    for what in ("vocab_size", "bos_id", "eos_id"):
        ours, theirs = getattr(found, what), getattr(shards, what)
        if ours != theirs:
            raise InputError(f"{folder}: its {what} is {ours}, the shards' {theirs}: it did not make them; {_AGAIN}")


def _continue(
    cfg: PretrainConfig, folder: Path, shards: Shards, dtype: torch.dtype, device: torch.device | None
) -> Start:
    if is_checkpoint(folder):
        raise InputError(
            f"pretrain.init_from: {folder} is a checkpoint of lang1 pretrain; export it first: "
            f"lang1 export {folder} --out FOLDER"
        )
    config = load_config(folder)
    entries = int(config.vocab_size)
    if shards.vocab_size > entries:
        raise InputError(
            f"pretrain.init_from: {folder} has embeddings of {entries:,} tokens, the shards use {shards.vocab_size:,}; "
            f"make the tokens with its tokenizer: lang1 tokenize tokenize.tokenizer={folder}"
        )
    _check_same_vocabulary(folder, shards.folder / TOKENIZER)
    length = _context_length(cfg, folder, config)
    model = load_model(folder, without_dropout(config))
    if type(model).__name__ == "LlamaForCausalLM":
        use_fast_attention(model, dtype, device)
    elif getattr(config, "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # torch's fused attention would leave the cap out
    is_linear = has_linear_head(model)
    if not is_linear:
        runs.say(
            f"pretrain: {type(model).__name__} makes its logits by more than one product: its own forward is used, "
            "which holds those of a whole micro-batch"
        )
    return Start(model, length, is_linear, {"init_from": folder.resolve().name, "shape": type(model).__name__})


def _check_same_vocabulary(folder: Path, ours: Path) -> None:
    model, tokens = (load_tokenizer(one).get_vocab() for one in (folder, ours))
    different = [entry for entry in tokens if model.get(entry) != tokens[entry]]
    if different or len(model) != len(tokens):
        raise InputError(
            f"pretrain.init_from: the tokens were not made with the tokenizer of {folder}: {len(different):,} of "
            f"{len(tokens):,} entries have another id there or none, and it has {len(model):,}; "
            f"run lang1 tokenize tokenize.tokenizer={folder}"
        )


def _context_length(cfg: PretrainConfig, folder: Path, config: Any) -> int:
    most: int | None = getattr(config, "max_position_embeddings", None)
    if cfg.context_length is None and most is None:
        raise InputError(f"pretrain.context_length: {folder} names no longest sequence; give one")
    if cfg.context_length is not None and most is not None and cfg.context_length > most:
        raise InputError(f"pretrain.context_length: {cfg.context_length} is more than the {most} positions of {folder}")
    return cfg.context_length or most or 0
