"""Less work for the same numbers: a Hugging Face model's forward where training on a CPU spends its time.

- Attention in bf16 on a CPU: torch's fused kernel gains nothing from bf16 there; two batched products around a softmax
  take half its time up to about 512 positions (docs/decisions/0003). Equal within bf16's rounding.
- Layers in fp32 on a CPU: the modules' `forward` is switched to the kernels of kernels.py, on the instance. A layer
  that holds what they do not know (a LoRA adapter, a cache) takes its class's own forward.
- No padding: rows of different lengths pass as one row of tokens (ragged.py), where attention here can take them so.
- Answers only: the last layer of a Llama needs queries, feed-forward and norm at the answer positions alone. Equal to
  the plain forward (tests/models/test_fast.py). Other classes take their own forward with `logits_to_keep`.

Class, parameter names and exports stay transformers' own: a reader of the folder gets its default forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lang1.errors import ConfigError
from lang1.models import kernels
from lang1.models.head import output_in_fp32
from lang1.models.ragged import Ragged

NAME = "lang1_matmul"


def use_fast_attention(model: Any, dtype: torch.dtype, device: torch.device | None = None) -> None:
    """Switch `model`, on a CPU, to what is faster there: the kernels of kernels.py in fp32, other attention in bf16."""
    if (device or model.device).type != "cpu":
        return
    if dtype == torch.float32:
        use_fast_layers(model)
    if dtype != torch.bfloat16:
        return
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, _matmul_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def use_fast_layers(model: Any) -> None:
    """Switch linear maps, and a Llama's layers and norms, to kernels.py. Where those do not apply, nothing changes."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = MethodType(_linear_forward, module)  # type: ignore[method-assign]
        elif type(module).__name__ == "LlamaRMSNorm":
            module.forward = MethodType(_norm_forward, module)
        elif type(module).__name__ == "LlamaDecoderLayer":
            module.forward = MethodType(_layer_forward, module)


def compile_model(model: Any) -> None:
    """Compile each decoder layer in place (`pretrain.compile`), names and classes unchanged; before `fully_shard`.

    A layer and not the model: one graph serves all layers, and FSDP2 wraps what is compiled. Another batch or length
    than the first is compiled once more, with both of them free.
    """
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise ConfigError(f"pretrain.compile: {type(model).__name__} has no list of layers to compile; set it to false")
    for layer in layers:
        layer.compile()


def _linear_forward(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    if module.bias is None and x.numel() and kernels.takes(x, module.weight):
        return kernels.linear(x, module.weight)
    return nn.Linear.forward(module, x)


def _norm_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    if x.numel() and kernels.takes(x, module.weight):
        return kernels.rms_norm(x, module.weight, module.variance_epsilon)
    plain: torch.Tensor = type(module).forward(module, x)
    return plain


def _layer_forward(layer: Any, hidden_states: torch.Tensor, attention_mask: Any = None, **options: Any) -> Any:
    """A LlamaDecoderLayer's forward (B, T, H) -> (B, T, H)."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if (
        options.get("past_key_values") is not None
        or not hidden_states.numel()
        or not kernels.takes(hidden_states)
        or not _is_known(layer)
    ):
        return type(layer).forward(layer, hidden_states, attention_mask, **options)
    attention = layer.self_attn
    implementation = attention.config._attn_implementation
    cos, sin = options.pop("position_embeddings")
    query, key, value, output, gate, up, down = (linear.weight for linear in _maps(layer))
    before, after = layer.input_layernorm, layer.post_attention_layernorm
    q, k, v = kernels.norm_qkv(hidden_states, before.weight, before.variance_epsilon, (query, key, value), cos, sin)
    attend = ALL_ATTENTION_FUNCTIONS[implementation]
    options |= {"dropout": 0.0, "scaling": attention.scaling}
    if isinstance(attention_mask, Ragged):
        mixed = attention_mask.attend(attend, attention, q, k, v, **options)
    else:
        mixed, _ = attend(attention, q, k, v, attention_mask, **options)
    x_BTH = kernels.linear(mixed.flatten(2), output).add_(hidden_states)
    return kernels.norm_swiglu(x_BTH, after.weight, after.variance_epsilon, (gate, up, down))


def _maps(layer: Any) -> tuple[Any, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    into = (attention.q_proj, attention.k_proj, attention.v_proj)
    return (*into, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)


def _is_known(layer: Any) -> bool:
    """Whether kernels.py knows all that is in a LlamaDecoderLayer."""
    config, maps = layer.self_attn.config, _maps(layer)
    return (
        config._attn_implementation != "eager"
        and config.hidden_act == "silu"
        and not config.attention_dropout
        and all(type(linear) is nn.Linear and linear.bias is None for linear in maps)
        and kernels.takes(*(linear.weight for linear in maps))
    )


def takes_ragged(model: Any) -> bool:
    """Whether `ragged_answer_logits` takes the model: a Llama on a CPU that `use_fast_attention` has switched."""
    if type(model).__name__ != "LlamaForCausalLM" or model.device.type != "cpu":
        return False
    if model.config._attn_implementation == NAME:
        return True
    return all(
        getattr(layer.forward, "__func__", None) is _layer_forward and _is_known(layer) for layer in model.model.layers
    )


def answer_logits(
    model: Any,
    tokens_BT: torch.Tensor,
    positions_BT: torch.Tensor | None,
    mask_B1TT: torch.Tensor | None,
    answers_BR: torch.Tensor,
    entries: Sequence[int] | None = None,
) -> torch.Tensor:
    """Logits (B, R, V) at the positions `answers_BR` of each row, not rounded to bf16. Mask and positions None: causal,
    counted from 0.

    With `entries` the logits of these entries of the vocabulary alone, in their order: (B, R, len(entries)).
    """
    if type(model).__name__ == "LlamaForCausalLM":
        return _llama_answer_logits(model, tokens_BT, positions_BT, mask_B1TT, answers_BR, entries)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    with contextlib.nullcontext() if head is None else output_in_fp32(head):
        logits: torch.Tensor = model(
            input_ids=tokens_BT,
            position_ids=positions_BT,
            attention_mask=mask_B1TT,
            use_cache=False,
            logits_to_keep=answers_BR,
        ).logits
    if logits.shape[:2] != answers_BR.shape:  # an unknown keyword is swallowed and ignored
        logits = logits.gather(1, answers_BR[:, :, None].expand(-1, -1, logits.shape[-1]))
    return logits if entries is None else logits[:, :, list(entries)]


def _llama_answer_logits(
    model: Any,
    tokens_BT: torch.Tensor,
    positions_BT: torch.Tensor | None,
    mask_B1TT: torch.Tensor | None,
    answers_BR: torch.Tensor,
    entries: Sequence[int] | None,
) -> torch.Tensor:
    inner, length = model.model, tokens_BT.shape[1]
    if positions_BT is None:
        positions_BT = torch.arange(length, device=tokens_BT.device)[None]
    x_BTH = inner.embed_tokens(tokens_BT)
    cos, sin = inner.rotary_emb(x_BTH, position_ids=positions_BT)
    mask = mask_B1TT
    if mask is not None and inner.config._attn_implementation == NAME:
        mask = _bias(mask)  # once, not in each layer
    for layer in inner.layers[:-1]:
        x_BTH = layer(x_BTH, attention_mask=mask, position_ids=positions_BT, position_embeddings=(cos, sin))
    if mask_B1TT is None:
        seen = torch.arange(length, device=tokens_BT.device) <= answers_BR[:, None, :, None]
    else:
        seen = mask_B1TT.gather(2, answers_BR[:, None, :, None].expand(-1, -1, -1, length))
    last, wide = inner.layers[-1], (len(x_BTH), -1, -1)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return _matmul_attention(last.self_attn, query, key, value, seen, last.self_attn.scaling)[0]

    last_BRH = _layer_at(last, x_BTH, cos.expand(wide), sin.expand(wide), lambda x: _at(x, answers_BR), attend)
    return _of_last(model, last_BRH, entries)


def ragged_answer_logits(
    model: Any, tokens_BT: torch.Tensor, positions_BT: torch.Tensor, ragged: Ragged, answers_BR: torch.Tensor
) -> torch.Tensor:
    """`answer_logits` (B, R, V) of rows without their padding, for a model that `takes_ragged`; their masks are
    `ragged`'s."""
    inner, real = model.model, ragged.real_of(tokens_BT.shape[1])
    tokens_1N, positions_1N = (
        functional.pad(x_BT[real], (0, ragged.count - ragged.tokens))[None] for x_BT in (tokens_BT, positions_BT)
    )
    x_1NH = inner.embed_tokens(tokens_1N)
    cos, sin = inner.rotary_emb(x_1NH, position_ids=positions_1N)
    for layer in inner.layers[:-1]:
        x_1NH = layer(x_1NH, attention_mask=ragged, position_ids=positions_1N, position_embeddings=(cos, sin))
    last, places_M = inner.layers[-1], (torch.tensor(ragged.starts)[:, None] + answers_BR).flatten()

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query_BHRD, made = query[0].unflatten(1, answers_BR.shape).transpose(0, 1), []
        for group in ragged.groups:
            k, v, asked_B1R1 = group.padded(key), group.padded(value), answers_BR[group.rows, None, :, None]
            if group.mask is None:
                seen = torch.arange(k.shape[2]) <= asked_B1R1
            else:
                seen = group.mask.gather(2, asked_B1R1.expand(-1, -1, -1, k.shape[2]))
            own = query_BHRD[group.rows]
            made.append(_matmul_attention(last.self_attn, own, k, v, seen, last.self_attn.scaling)[0])
        return torch.cat(made).flatten(0, 1)[None]

    last_1MH = _layer_at(last, x_1NH, cos, sin, lambda x: x[:, places_M], attend)
    return _of_last(model, last_1MH.view(*answers_BR.shape, -1), None)


def _of_last(model: Any, last_BRH: torch.Tensor, entries: Sequence[int] | None) -> torch.Tensor:
    """Logits of what the last layer gives."""
    normed_BRH = model.model.norm(last_BRH)
    head = model.lm_head
    if entries is not None and type(head) is nn.Linear and head.bias is None and type(head.weight) is nn.Parameter:
        with torch.autocast(normed_BRH.device.type, enabled=False):
            chosen: torch.Tensor = normed_BRH.float() @ head.weight[list(entries)].float().t()
        return chosen
    with output_in_fp32(head):
        logits: torch.Tensor = head(normed_BRH)
    return logits if entries is None else logits[:, :, list(entries)]


def _layer_at(
    layer: Any,
    x_BTH: torch.Tensor,
    cos_BTD: torch.Tensor,
    sin_BTD: torch.Tensor,
    at: Callable[[torch.Tensor], torch.Tensor],
    attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """A decoder layer's output at some positions, those that `at` takes: keys and values of all, everything else of
    those alone. `attend` makes their queries (B, heads, R, D), with keys and values of all, (B, R, heads, D)."""
    from transformers.models.llama.modeling_llama import rotate_half

    attention = layer.self_attn
    normed = layer.input_layernorm(x_BTH)
    key, value = (_heads(project(normed), attention.head_dim) for project in (attention.k_proj, attention.v_proj))
    query = _heads(attention.q_proj(at(normed)), attention.head_dim)
    key = key * cos_BTD[:, None] + rotate_half(key) * sin_BTD[:, None]
    query = query * at(cos_BTD)[:, None] + rotate_half(query) * at(sin_BTD)[:, None]
    x_BRH: torch.Tensor = at(x_BTH) + attention.o_proj(attend(query, key, value).flatten(2))
    return x_BRH + layer.mlp(layer.post_attention_layernorm(x_BRH))


def _heads(x_BTH: torch.Tensor, head_dim: int) -> torch.Tensor:
    return x_BTH.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _at(x_BTH: torch.Tensor, positions_BR: torch.Tensor) -> torch.Tensor:
    return x_BTH.gather(1, positions_BR[:, :, None].expand(-1, -1, x_BTH.shape[-1]))


def _matmul_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | Ragged | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    if isinstance(attention_mask, Ragged):
        return attention_mask.attend(_matmul_attention, module, query, key, value, scaling=scaling), None
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary embedding leaves them in fp32
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if attention_mask is None:
        bias = _causal_bias(query.shape[2], key.shape[2], query.dtype)
    else:
        bias = _bias(attention_mask) if attention_mask.dtype == torch.bool else attention_mask
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.matmul(query * scale, key.transpose(-1, -2)) + bias.to(query.dtype)
        mixed = torch.matmul(scores.softmax(-1), value)
    return mixed.transpose(1, 2).contiguous(), None


def _bias(seen: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(seen, dtype=torch.bfloat16).masked_fill_(~seen, -torch.inf)


@lru_cache(maxsize=8)
def _causal_bias(queries: int, keys: int, dtype: torch.dtype) -> torch.Tensor:
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    return torch.zeros(queries, keys, dtype=dtype).masked_fill_(~seen, -torch.inf)
