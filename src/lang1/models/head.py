"""The last map of a model, from its hidden state to logits: in fp32 where they are read, and whether it is linear.

Whether a causal LM's logits are its last hidden state times the weights of its output head, and nothing else:

Where they are, training takes the loss in chunks from hidden state and weights (training/loss.py) and never holds the
logits of a batch. They are not where a model caps its logits (Gemma 2), scales them (Cohere, Granite), adds a bias
(Phi, GPT-J) or normalises outside its base model. No list of names can be whole, so the model is asked: one forward of
a few tokens in which the hidden state is replaced by a large random one, which shows a cap that small logits hide.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

PROBE_TOKENS = 8
PROBE_LOGITS = 100.0
"""size of the probe's logits: beyond any cap in use (Gemma 2 caps at 30)"""


def has_linear_head(model: Any) -> bool:
    """True where logits = last hidden state @ output weights. One forward of 8 tokens; the model is left as it was."""
    import torch

    head = model.get_output_embeddings()
    if model.base_model is model or head is None or getattr(head, "bias", None) is not None:
        return False
    hidden: list[torch.Tensor] = []

    def replace(_module: Any, _inputs: Any, output: Any) -> Any:
        state = output.last_hidden_state
        drawn = torch.randn(state.shape, generator=torch.Generator().manual_seed(0)).to(state)
        largest = (drawn @ head.weight.T).abs().max().clamp_min(1e-30)
        output.last_hidden_state = drawn * (PROBE_LOGITS / largest)
        hidden.append(output.last_hidden_state)
        return output

    hook = model.base_model.register_forward_hook(replace)
    was_training = model.training
    try:
        with torch.no_grad():
            tokens = torch.arange(PROBE_TOKENS, device=model.device)[None] % len(head.weight)
            logits = model.eval()(input_ids=tokens, use_cache=False).logits
    finally:
        hook.remove()
        model.train(was_training)
    return bool(hidden) and torch.allclose(logits, hidden[0] @ head.weight.T, rtol=1e-3, atol=1e-2)


@contextlib.contextmanager
def output_in_fp32(head: Any) -> Iterator[None]:
    """Within, what the module `head` gives in bf16 is made in fp32 in its place, from the same input.

    bf16 has eight bits for a number: logits near 4 lie 0.03 apart, so that many notes would have one probability.
    """
    import torch

    def again(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        if output.dtype == torch.float32:
            return output
        weights = {name: weight.float() for name, weight in module.named_parameters()}  # FSDP's are bf16
        with torch.autocast(output.device.type, enabled=False):
            return torch.func.functional_call(module, weights, (inputs[0].float(),))

    hook = head.register_forward_hook(again)
    try:
        yield
    finally:
        hook.remove()
