"""Sample generations at fixed steps: what the model writes after fixed prompts, and whether that has degenerated.

One batch of all prompts, a plain forward a token, no key-value cache, one shape from the first token to the last.
Under FSDP2 every forward is a collective: all ranks call `generate` and make the same number of forwards, whatever
they draw and wherever a text ends, so no rank can wait for another. transformers' `generate` stops when its texts end,
which needs a flag agreed over ranks. The cost is `max_new_tokens` forwards of a few short rows: 64 of 6 x 110
positions read 42,000 tokens, as much as 1.4 % of the forwards and backwards of a step of 1M tokens.

A forward runs under `no_grad`, never `inference_mode`: FSDP2 would keep inference tensors as its gathered parameters
and the next training step would fail (tried; tests/training/test_monitor_sharded.py).

Texts go to generations.jsonl in the run folder and nowhere else. A model trained on notes can write what it has read,
whatever the prompt, so the file is as private as the shards. Events about them hold ids and numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lang1.config.monitoring import GenerationConfig
from lang1.corpus.hashes import hash_fraction
from lang1.errors import InputError
from lang1.training.events import NAME

GENERATIONS = "generations.jsonl"
NGRAM = 4
"""tokens that make a repeated piece"""
REPEATED = 0.5
"""share of n-grams that stood before in the same text, from which it is called repetitive"""


@dataclass(frozen=True)
class Prompt:
    """What the model goes on from."""

    id: str
    text: str


@dataclass(frozen=True)
class Generation:
    """What it wrote."""

    prompt: Prompt
    text: str
    tokens: int
    """tokens before the end of text, at most max_new_tokens"""
    repeated: float
    """share of 4-grams of tokens that stood before in the text"""

    @property
    def fault(self) -> str | None:
        """`empty` or `repetition`; None for a text that may be one."""
        if not self.text.strip():
            return "empty"
        return "repetition" if self.repeated >= REPEATED else None


def read_prompts(config: GenerationConfig) -> list[Prompt]:
    """The prompts of `config`: those of the package, or the user's file.

    Raises InputError when the file is no list of {"id", "text"} with distinct ids and some text.
    """
    if config.prompts is None:
        source = "prompts.json"
        raw = (files("lang1.training") / "prompts.json").read_text(encoding="utf-8")
    else:
        source = config.prompts
        try:
            raw = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise InputError(f"monitor.generations.prompts: {source}: not a readable UTF-8 file") from None
    try:
        found = [Prompt(str(row["id"]), str(row["text"])) for row in json.loads(raw)]
    except (ValueError, TypeError, KeyError):
        found = []
    named = all(p.id and NAME.fullmatch(p.id) for p in found)  # an event names the prompts that went wrong
    if not found or not named or len({p.id for p in found}) < len(found) or not all(p.text.strip() for p in found):
        raise InputError(
            f'monitor.generations.prompts: {source}: must be a JSON list of {{"id": ..., "text": ...}}, '
            "ids distinct and short names without spaces, no text empty"
        )
    return found


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], config: GenerationConfig, *, context_length: int, seed: int,
    step: int,
) -> list[Generation]:  # fmt: skip
    """What `model` writes after each prompt, in their order. All ranks of a sharded model call it together.

    A prompt keeps its last `context_length - max_new_tokens` tokens. Drawn tokens are fixed by seed, step and prompt;
    torch's own random state is neither read nor moved. The model's mode is given back.
    """
    import torch

    new = min(config.max_new_tokens, context_length - 1)
    encoded = [tokenizer(prompt.text)["input_ids"][-(context_length - new) :] for prompt in prompts]
    lengths_B = torch.tensor([len(ids) for ids in encoded])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    tokens_BT = torch.full((len(prompts), int(lengths_B.max()) + new), int(pad))
    for row, ids in zip(tokens_BT, encoded, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    draws_BN = [_draws(seed, step, prompt, new) for prompt in prompts]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for position in range(new):
                last_B = lengths_B + position - 1
                logits_BV = _last_logits(model, tokens_BT.to(model.device), last_B.to(model.device))
                picked_B = _pick(logits_BV.float().cpu(), config.temperature, [row[position] for row in draws_BN])
                tokens_BT[torch.arange(len(prompts)), last_B + 1] = picked_B
    finally:
        model.train(was_training)
    return [
        _finished(tokenizer, prompt, row[length : length + new].tolist())
        for prompt, row, length in zip(prompts, tokens_BT, lengths_B.tolist(), strict=True)
    ]


def repeated_share(tokens: Sequence[int]) -> float:
    """Share of the 4-grams of `tokens` that stood before among them; 0 for fewer than eight tokens."""
    if len(tokens) < 2 * NGRAM:
        return 0.0
    grams = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams)


def as_line(generation: Generation, step: int) -> dict[str, Any]:
    """The line of generations.jsonl."""
    return {
        "step": step,
        "prompt_id": generation.prompt.id,
        "prompt": generation.prompt.text,
        "text": generation.text,
        "tokens": generation.tokens,
        "repeated": round(generation.repeated, 4),
        "fault": generation.fault,
    }


def _last_logits(model: Any, tokens_BT: Any, last_B: Any) -> Any:
    """Logits (B, V) at one position of each row, by the model's own forward: what FSDP2 hooks into."""
    logits = model(input_ids=tokens_BT, use_cache=False, logits_to_keep=last_B[:, None]).logits
    if logits.shape[1] != 1:  # an unknown keyword is swallowed and ignored
        logits = logits.gather(1, last_B[:, None, None].expand(-1, 1, logits.shape[-1]))
    return logits[:, 0]


def _draws(seed: int, step: int, prompt: Prompt, count: int) -> list[float]:
    return [hash_fraction(seed, f"{step}:{prompt.id}:{n}") for n in range(count)]


def _pick(logits_BV: Any, temperature: float, draws_B: Sequence[float]) -> Any:
    """The likeliest token of each row, or the one whose share of the probability holds the row's draw."""
    import torch

    if temperature == 0:
        return logits_BV.argmax(-1)
    reached_BV = (logits_BV.double() / temperature).softmax(-1).cumsum(-1)
    marks_B1 = torch.tensor(draws_B, dtype=torch.float64)[:, None] * reached_BV[:, -1:]
    return torch.searchsorted(reached_BV, marks_B1, right=True)[:, 0].clamp(max=logits_BV.shape[-1] - 1)


def _finished(tokenizer: Any, prompt: Prompt, tokens: list[int]) -> Generation:
    if tokenizer.eos_token_id in tokens:
        tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Generation(prompt, text, len(tokens), repeated_share(tokens))
