"""Encoders: a BERT of a preset with fresh weights, the tokens that it needs, and classifiers that are made of one.

`nyutron-109m` is BERT-base (Devlin et al. 2019, arXiv:1810.04805), the shape of NYUTron (Jiang et al., Nature
2023;619:357-62): 109,482,240 parameters with BERT's vocabulary of 30,522 entries and the pooler. Pretraining has the
masked-language-model head in place of the pooler, finetuning a fresh pooler and a classifier, as NYUTron. No dropout:
nothing in training draws from torch's generator, so that a resumed run repeats the bytes of one that was not stopped
(docs/decisions/0017-encoder.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast, get_args

from lang1 import runs
from lang1.config import EncoderPreset, Preset, ShapeOverrides
from lang1.errors import ConfigError, InputError
from lang1.models.build import draw_weights
from lang1.models.load import load_config, load_tokenizer, read_weights, without_dropout

if TYPE_CHECKING:
    from transformers import BertConfig, BertForMaskedLM

MASK = "<mask>"
"""the token that is put in the place of a masked one, where the tokenizer has none of its own"""
TOKENIZER_CONFIG = "tokenizer_config.json"
COUNTED_FROM_PADDING = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet"}
"""kinds of encoders whose first position is the one after that of the padding token's id"""


@dataclass(frozen=True)
class EncoderShape:
    """A BERT's dimensions."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    context_length: int
    """positions, [CLS] and [SEP] included"""
    source: str
    """whose shape it is"""


ENCODERS: dict[EncoderPreset, EncoderShape] = {
    "encoder-tiny": EncoderShape(128, 2, 2, 512, 512, "BERT-tiny (arXiv:1908.08962)"),
    "nyutron-109m": EncoderShape(768, 12, 12, 3072, 512, "BERT-base, as NYUTron"),
}


@dataclass(frozen=True)
class SpecialIds:
    """The tokens of an encoder that are no text."""

    cls: int
    """first of a sequence"""
    sep: int
    """last of a sequence, and between documents"""
    pad: int
    mask: int
    entries: int
    """of the vocabulary, the mask among them"""


def is_encoder_preset(preset: Preset | EncoderPreset) -> TypeGuard[EncoderPreset]:
    """Whether a preset of pretraining is an encoder's."""
    return preset in get_args(EncoderPreset)


def decoder_preset(preset: Preset | EncoderPreset) -> Preset:
    """The preset, where it is a decoder's. Raises ConfigError for an encoder's."""
    if is_encoder_preset(preset):
        raise ConfigError(f"pretrain.preset: {preset} is an encoder; here decoders are reckoned with")
    return cast(Preset, preset)


def encoder_shape(preset: EncoderPreset, overrides: ShapeOverrides | None = None) -> EncoderShape:
    """The preset's dimensions with the overrides in their place. Raises ConfigError for a shape that no BERT has."""
    shape = ENCODERS[preset]
    given = {} if overrides is None else {key: value for key, value in vars(overrides).items() if value is not None}
    if "kv_heads" in given:
        raise ConfigError("pretrain.shape.kv_heads: an encoder has as many key-value heads as heads; leave it out")
    if given:
        shape = replace(shape, **given, source=f"{shape.source}, changed: {', '.join(given)}")
    if shape.hidden % shape.heads:
        raise ConfigError(f"pretrain.shape.hidden: {shape.hidden} is no multiple of {shape.heads} heads")
    return shape


def encoder_config(
    preset: EncoderPreset,
    entries: int,
    context_length: int | None = None,
    pad_id: int = 0,
    overrides: ShapeOverrides | None = None,
) -> BertConfig:
    """The Hugging Face configuration of a preset for a vocabulary of so many entries."""
    from transformers import BertConfig

    shape = encoder_shape(preset, overrides)
    return BertConfig(
        vocab_size=entries,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=context_length or shape.context_length,
        type_vocab_size=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=pad_id,
        architectures=["BertForMaskedLM"],
    )


def build_encoder(
    preset: EncoderPreset,
    ids: SpecialIds,
    seed: int,
    context_length: int | None = None,
    overrides: ShapeOverrides | None = None,
) -> BertForMaskedLM:
    """A model of this shape with fresh fp32 weights, on the CPU: matrices N(0, 0.02), keyed by seed and name."""
    import torch
    from transformers import BertForMaskedLM

    config = encoder_config(preset, ids.entries, context_length, ids.pad, overrides)
    with torch.random.fork_rng(devices=[]):
        model = BertForMaskedLM(config)
    draw_weights(model, seed)
    return model


def special_ids(folder: Path) -> SpecialIds:
    """The special tokens of a tokenizer folder as an encoder uses them: its own, else the text's begin and end.

    A tokenizer without a mask token gets one entry more. Raises InputError for one without an end-of-text token.
    """
    tokenizer = load_tokenizer(folder)
    sep = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
    if sep is None:
        raise InputError(f"{folder}: the tokenizer has no end-of-text token (eos_token or sep_token)")
    cls = _first(tokenizer.cls_token_id, tokenizer.bos_token_id, sep)
    known = max(tokenizer.get_vocab().values()) + 1
    mask = _first(tokenizer.mask_token_id, known)
    assert cls is not None and mask is not None
    return SpecialIds(cls, sep, _first(tokenizer.pad_token_id, sep) or 0, mask, max(known, mask + 1))


def _first(*ids: int | None) -> int | None:
    return next((int(one) for one in ids if one is not None), None)


def name_special_tokens(folder: Path, source: Path) -> None:
    """Tell transformers, in the tokenizer configuration in `folder`, which tokens an encoder uses; `source` is the
    tokenizer that it was copied from. A mask token that the vocabulary lacks becomes its last entry."""
    tokenizer = load_tokenizer(source)
    config = runs.read_json(folder / TOKENIZER_CONFIG)
    sep = tokenizer.sep_token or tokenizer.eos_token
    config |= {
        "cls_token": tokenizer.cls_token or tokenizer.bos_token or sep,
        "sep_token": sep,
        "pad_token": tokenizer.pad_token or sep,
        "mask_token": tokenizer.mask_token or MASK,
    }
    runs.write_json(folder / TOKENIZER_CONFIG, config)


def load_classifier(folder: Path, labels: int | None = None) -> Any:
    """The classifier of an encoder folder, fp32 on the CPU, in evaluation mode.

    `labels`: a fresh head of so many outputs on a pretrained body, without dropout; null: the head in the folder.
    Weights that the folder lacks are drawn by transformers and to be drawn again. Raises InputError when it cannot be
    read, or when a whole classifier is asked for and weights are missing.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = load_config(folder)
    if labels is not None:
        without_dropout(config).num_labels = labels
    is_fresh = is_of_head if labels is not None else lambda name: False
    with torch.random.fork_rng(devices=[]):
        model, missing = read_weights(AutoModelForSequenceClassification, folder, "an encoder", config, is_fresh)
    wrong = [name for name in missing if not is_fresh(name)]
    if wrong:
        raise InputError(f"{folder}: weights lack {', '.join(wrong[:3])}; give the folder of a whole encoder")
    return model


def positions_of(config: Any) -> int:
    """Tokens that a sequence may have, [CLS] and [SEP] among them: RoBERTa counts positions from its padding on."""
    most = int(config.max_position_embeddings)
    return most - (int(config.pad_token_id) + 1 if config.model_type in COUNTED_FROM_PADDING else 0)


def is_of_head(name: str) -> bool:
    """Whether a parameter is no part of the body: also DistilBERT's layer before the classifier."""
    return name.startswith(("classifier.", "pre_classifier.", "score.")) or ".pooler." in name


def draw_head(model: Any, seed: int) -> None:
    """Fresh pooler and classifier, matrices N(0, 0.02) keyed by seed and name, biases 0."""
    import torch

    head = {name: parameter for name, parameter in model.named_parameters() if is_of_head(name)}
    draw_weights(model, seed, set(head))
    with torch.no_grad():
        for parameter in head.values():
            if parameter.ndim == 1:
                parameter.zero_()
