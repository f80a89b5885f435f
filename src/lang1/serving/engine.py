"""From prompts of token ids to written tokens and log-probabilities: a forward a batch, one at a time.

A prompt that asks for one token takes the same forward as `lang1 evaluate` in memory (models/fast.py), so the two give
the same probabilities. Longer answers keep keys and values. Log-probabilities are of the model's own distribution
(temperature 1) whatever the temperature of the draw, as vLLM's are.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lang1.models.fast import answer_logits
from lang1.models.head import has_linear_head
from lang1.models.load import load_scorer
from lang1.scoring.options import batches, in_precision, longest_first, pad_id_of, padded, round_up, width_multiple

Gone = Callable[[], bool]
"""true once nobody waits for an answer any more"""

ECHO_POSITIONS = 256
"""positions of a prompt whose logits are held at once"""


@dataclass(frozen=True)
class Engine:
    """A model that answers, with what it needs to."""

    model: Any
    tokenizer: Any
    context_length: int
    """prompt and answer together, at most, tokens"""
    batch_tokens: int
    dtype: torch.dtype
    linear_head: bool
    ends: frozenset[int]
    """tokens that end an answer"""

    @property
    def vocabulary(self) -> int:
        """Token ids below this one are the model's."""
        return int(self.model.get_input_embeddings().num_embeddings)


@dataclass(frozen=True)
class Wish:
    """What is asked of each prompt of a request."""

    max_tokens: int
    temperature: float
    n: int
    seed: int | None
    echo: bool = False
    top: int | None = None
    """log-probabilities wanted a position: of so many likeliest tokens; null: none"""
    named: tuple[int, ...] = ()
    """of these tokens instead"""


@dataclass(frozen=True)
class Read:
    """A token of a text with the log-probabilities at its place; None before the first token."""

    token: int
    logprob: float | None
    top: dict[int, float] | None


@dataclass(frozen=True)
class Written:
    """One answer to one prompt."""

    tokens: list[int]
    """ids that were written, the end-of-text token among them"""
    finish: str
    """stop: the end-of-text token came; length: `max_tokens` were written"""
    reads: list[Read]
    """a token each, those of an echoed prompt first; empty when no log-probabilities were asked for"""


def load_engine(folder: Path, *, batch_tokens: int, dtype: torch.dtype) -> Engine:
    """A Hugging Face folder, ready to answer. Raises InputError when it cannot be read."""
    model, tokenizer = load_scorer(folder, dtype)
    linear = has_linear_head(model)
    context = int(getattr(model.config, "max_position_embeddings", None) or 4096)
    return Engine(model, tokenizer, context, batch_tokens, dtype, linear, _ends(model, tokenizer))


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokenizer's end of text and those of the model's generation_config.json: a chat model has several."""
    config = getattr(model, "generation_config", None)
    told = getattr(config, "eos_token_id", None)
    listed = told if isinstance(told, list) else [told]
    return frozenset(int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None)


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


def complete(
    engine: Engine, prompts: Sequence[Sequence[int]], wish: Wish, gone: Gone = lambda: False
) -> list[list[Written]]:
    """`wish.n` answers to each prompt, in order. Drawn tokens are fixed by seed, place of the prompt and sample.

    Raises Abandoned, between two forwards, once `gone`.
    """
    with torch.inference_mode(), in_precision(engine.model, engine.dtype):
        if wish.max_tokens == 1 and not wish.echo:
            return _one_token(engine, prompts, wish, gone)
        return [_one_prompt(engine, list(ids), place, wish, gone) for place, ids in enumerate(prompts)]


def _stop_if(gone: Gone) -> None:
    if gone():
        raise Abandoned


def _one_token(engine: Engine, prompts: Sequence[Sequence[int]], wish: Wish, gone: Gone) -> list[list[Written]]:
    """Prompts of similar length share a forward, batched and padded as in memory (scoring/options.py)."""
    answers: dict[int, list[Written]] = {}
    model, lengths = engine.model, [len(ids) for ids in prompts]
    multiple = width_multiple(model)
    widths = [round_up(length, multiple) for length in lengths]
    for batch in batches(longest_first(lengths), widths, engine.batch_tokens):
        _stop_if(gone)
        tokens_BT = padded([prompts[place] for place in batch], pad_id_of(engine.tokenizer), model.device, multiple)
        last_B1 = torch.tensor([[lengths[place] - 1] for place in batch], device=model.device)
        logits_B1V = answer_logits(model, tokens_BT, None, None, last_B1)
        for place, logits_V in zip(batch, _logprobs(logits_B1V[:, 0]), strict=True):
            writers = [_Writer(engine, wish, place, sample) for sample in range(wish.n)]
            for writer in writers:
                writer.take(logits_V)
            answers[place] = [writer.written([]) for writer in writers]
    return [answers[place] for place in range(len(prompts))]


def _one_prompt(engine: Engine, ids: list[int], place: int, wish: Wish, gone: Gone) -> list[Written]:
    """An echoed prompt, or an answer of several tokens: a prompt by itself, as many samples side by side as fit."""
    _stop_if(gone)
    echoed = list(_read_prompt(engine, ids, wish)) if wish.echo and wish.top is not None else []
    writers = [_Writer(engine, wish, place, sample) for sample in range(wish.n)]
    if wish.max_tokens:
        room = max(1, engine.batch_tokens // (len(ids) + wish.max_tokens))
        for start in range(0, wish.n, room):
            _write(engine, ids, writers[start : start + room], gone)
    return [writer.written(echoed) for writer in writers]


def _write(engine: Engine, ids: list[int], writers: Sequence[_Writer], gone: Gone) -> None:
    """Answers to one prompt, token by token, until all are finished."""
    device = engine.model.device
    if writers[0].wish.max_tokens == 1:
        last_11 = torch.tensor([[len(ids) - 1]], device=device)
        logits_1V = answer_logits(engine.model, torch.tensor([ids], device=device), None, None, last_11)[:, 0]
        cache = None
    else:
        found = engine.model(input_ids=torch.tensor([ids], device=device), use_cache=True, logits_to_keep=1)
        logits_1V, cache = found.logits[:, -1], found.past_key_values
        cache.batch_repeat_interleave(len(writers))
    first_V = _logprobs(logits_1V)[0]
    for writer in writers:
        writer.take(first_V)
    while cache is not None and any(writer.finish is None for writer in writers):
        _stop_if(gone)
        tokens_N1 = torch.tensor([[writer.tokens[-1]] for writer in writers], device=device)
        logits_N1V = engine.model(input_ids=tokens_N1, past_key_values=cache, use_cache=True).logits
        for writer, logits_V in zip(writers, _logprobs(logits_N1V[:, -1]), strict=True):
            writer.take(logits_V)


class _Writer:
    """One answer as it grows."""

    def __init__(self, engine: Engine, wish: Wish, place: int, sample: int) -> None:
        self.ends = engine.ends
        self.wish = wish
        self.tokens: list[int] = []
        self.reads: list[Read] = []
        self.finish: str | None = None if wish.max_tokens else "length"
        seed = secrets.randbits(63) if wish.seed is None else wish.seed
        self.draws = np.random.default_rng([seed, place, sample])

    def take(self, logprobs_V: torch.Tensor) -> None:
        """Draw the next token; nothing once the answer is finished."""
        if self.finish is not None:
            return
        token = self._draw(logprobs_V)
        self.tokens.append(token)
        if self.wish.top is not None:
            self.reads.append(_read(logprobs_V, token, self.wish))
        if token in self.ends:
            self.finish = "stop"
        elif len(self.tokens) == self.wish.max_tokens:
            self.finish = "length"

    def _draw(self, logprobs_V: torch.Tensor) -> int:
        if self.wish.temperature == 0:
            return int(logprobs_V.argmax())
        reached_V = (logprobs_V.double() / self.wish.temperature).softmax(-1).cumsum(-1)
        mark = self.draws.random() * float(reached_V[-1])
        return min(int(torch.searchsorted(reached_V, mark, right=True)), len(logprobs_V) - 1)

    def written(self, echoed: list[Read]) -> Written:
        return Written(self.tokens, self.finish or "length", [*echoed, *self.reads])


def _read_prompt(engine: Engine, ids: list[int], wish: Wish) -> Iterator[Read]:
    """The prompt's own tokens; logits of a few hundred positions at a time where the model's head allows it."""
    yield Read(ids[0], None, None)
    tokens_1T = torch.tensor([ids], device=engine.model.device)
    if engine.linear_head:
        hidden_TH = engine.model.base_model(input_ids=tokens_1T, use_cache=False).last_hidden_state[0]
        head = engine.model.get_output_embeddings()
        starts = range(0, len(ids) - 1, ECHO_POSITIONS)
        parts: Iterator[Any] = (head(hidden_TH[start : start + ECHO_POSITIONS]) for start in starts)
    else:
        parts = iter([engine.model(input_ids=tokens_1T, use_cache=False).logits[0]])
    place = 1
    for logits_PV in parts:
        for logprobs_V in _logprobs(logits_PV[: len(ids) - place]):
            yield _read(logprobs_V, ids[place], wish)
            place += 1


def _read(logprobs_V: torch.Tensor, token: int, wish: Wish) -> Read:
    """The tokens that were asked for, likeliest first, and the one that stands there, as vLLM does."""
    if wish.named:
        wanted = list(wish.named)
    else:
        wanted = logprobs_V.topk(min(wish.top or 0, len(logprobs_V))).indices.tolist()
    values = logprobs_V[[*wanted, token]].tolist()
    return Read(token, values[-1], dict(zip([*wanted, token], values, strict=True)))


def _logprobs(logits_BV: torch.Tensor) -> torch.Tensor:
    return logits_BV.float().log_softmax(-1).cpu()
