"""From a preset to a Hugging Face LlamaForCausalLM with fresh weights.

Each weight is drawn from its own generator, keyed by seed and name: the same seed gives the same weights whatever
transformers or torch draw before. Matrices N(0, 0.02), those that write into the residual stream divided by
sqrt(2 x layers) as in GPT-2, norms 1. Nothing here knows of ranks or of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from lang1.config import Preset, ShapeOverrides
from lang1.models.presets import shape_of

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

ROPE_THETA = 10000.0
"""kept at the default: readers older than transformers 5 fall back to it silently"""
INIT_STD = 0.02
_INTO_RESIDUAL = ("o_proj.weight", "down_proj.weight")


def llama_config(
    preset: Preset,
    vocab_size: int,
    context_length: int | None = None,
    bos_id: int | None = None,
    eos_id: int | None = None,
    overrides: ShapeOverrides | None = None,
) -> LlamaConfig:
    """The Hugging Face configuration of a preset, with other dimensions where `overrides` names them.

    Raises ConfigError for a shape that no Llama has.
    """
    from transformers import LlamaConfig

    shape = shape_of(preset, overrides)
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=context_length or shape.context_length,
        tie_word_embeddings=shape.tied,
        rope_theta=ROPE_THETA,
        rms_norm_eps=1e-5,
        initializer_range=INIT_STD,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        pad_token_id=None,
        attention_bias=False,
        use_cache=True,
    )


def build_model(
    preset: Preset,
    vocab_size: int,
    seed: int,
    context_length: int | None = None,
    bos_id: int | None = None,
    eos_id: int | None = None,
    overrides: ShapeOverrides | None = None,
) -> LlamaForCausalLM:
    """A model of this shape with fresh fp32 weights, on the CPU."""
    return build_from_config(llama_config(preset, vocab_size, context_length, bos_id, eos_id, overrides), seed)


def build_from_config(config: Any, seed: int) -> Any:
    """A causal LM of any Hugging Face configuration with fresh fp32 weights drawn by `seed`."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # weights that draw_weights does not know keep what transformers drew
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    draw_weights(model, seed)
    return model


def draw_weights(model: Any, seed: int, names: Collection[str] | None = None) -> None:
    """Overwrite the matrices of `model`, or the named ones, by draws that depend on seed and name alone."""
    import torch

    layers = getattr(model.config, "num_hidden_layers", 1)
    for name, parameter in model.named_parameters():
        if parameter.ndim != 2 or (names is not None and name not in names):
            continue  # norms and biases start at transformers' constants
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        std = INIT_STD / (2 * layers) ** 0.5 if name.endswith(_INTO_RESIDUAL) else INIT_STD
        with torch.no_grad():
            parameter.normal_(0.0, std, generator=generator)


def parameter_count(model: Any) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
