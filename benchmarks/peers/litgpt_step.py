"""LitGPT 0.5.13's training step, as `litgpt pretrain` takes it by default (main and fit of litgpt/pretrain.py).

One difference, said by an argument: `eager` leaves out its `torch.compile(model)`. Run by pretrain_step.py with the
interpreter of benchmarks/.peers/litgpt.
"""

from __future__ import annotations

import sys

import torch
from lightning import Fabric
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.utils import chunked_cross_entropy, instantiate_torch_optimizer
from step_shapes import SHAPES, VOCABULARY, StepShape, batch, fill, measure

HF = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "lm_head.weight": "lm_head.weight",
    "attn.proj.weight": "self_attn.o_proj.weight",
    "mlp.fc_1.weight": "mlp.gate_proj.weight",
    "mlp.fc_2.weight": "mlp.up_proj.weight",
    "mlp.proj.weight": "mlp.down_proj.weight",
}


def main(shape_name: str, way: str, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    shape = SHAPES[shape_name]
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric.launch()
    model = GPT(config(shape))
    if shape.tied:
        model.transformer.wte.weight = model.lm_head.weight
    draw(model, shape)
    if way == "compiled":
        model = torch.compile(model)
    model = fabric.setup(model)
    optimizer = instantiate_torch_optimizer("AdamW", model.parameters(), fused=fabric.device.type == "cuda")
    optimizer = fabric.setup_optimizers(optimizer)
    tokens = batch(shape)

    def step() -> float:
        input_ids = tokens[:, 0 : shape.length].contiguous().long()
        targets = tokens[:, 1 : shape.length + 1].contiguous().long()
        loss = chunked_cross_entropy(model(input_ids), targets)
        fabric.backward(loss / 1)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    measure(step, steps)


def config(shape: StepShape) -> Config:
    return Config(
        name="step",
        block_size=shape.length,
        n_layer=shape.layers,
        n_embd=shape.hidden,
        n_head=shape.heads,
        n_query_groups=shape.kv_heads,
        vocab_size=VOCABULARY,
        padded_vocab_size=VOCABULARY,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=1e-5,
        mlp_class_name="LLaMAMLP",
        intermediate_size=shape.ffn,
    )


def draw(model: GPT, shape: StepShape) -> None:
    head = shape.hidden // shape.heads
    sizes = [shape.heads * head, shape.kv_heads * head, shape.kv_heads * head]
    for name, parameter in model.named_parameters():
        layer, _, rest = name.removeprefix("transformer.h.").partition(".")
        if rest == "attn.qkv.weight":
            for part, rows in zip("qkv", parameter.data.split(sizes), strict=True):
                fill(f"model.layers.{layer}.self_attn.{part}_proj.weight", rows)
        elif name in HF:
            fill("model.embed_tokens.weight" if shape.tied else HF[name], parameter)
        elif rest in HF:
            fill(f"model.layers.{layer}.{HF[rest]}", parameter)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
