"""From a note, a question and a model to the logits of the options: the only place that knows the answer position.

The note is tokenised alone and its head kept; the question is tokenised as it reads after a text and appended, so it
is never cut; BOS stands first where the tokenizer's own rule puts one. The answer position is the prompt's last
token, and an option is the one token that ` A` adds after `Answer:`. Text is never read as special tokens: a note
that says `</s>` says so in plain text.

Cost: one forward a prompt, in batches of similar length, right-padded: under causal attention no later token reaches
the answer position, so no mask is needed. Logits are made at that position only. Tasks that share notes share their
computation (`score_prompt_sets`): the note runs once, each question runs on its cache. That is 2-3 times faster on
the five tasks (benchmarks/scoring.py) and equal to the plain path to 1e-5.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lang1.errors import InputError
from lang1.tasks.prompts import LETTERS, Question, render_question

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHOD = "one-token"
"""how the probabilities of a score file were read: each option is one token at the answer position"""


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of a whole prompt; the answer follows the last one."""

    ids: list[int]
    note_tokens: int
    """tokens of the note that were kept"""
    truncated_tokens: int
    """tokens of the note that were cut from its end"""
    question_tokens: int
    """tokens after the note, the same for every row of a question"""


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one question, with the tokens of its options."""

    encoded: list[EncodedPrompt]
    option_ids: list[int]


def encode_prompts(
    tokenizer: Any,
    texts: Sequence[str],
    question: Question,
    max_note_tokens: int,
    context_length: int | None = None,
) -> list[EncodedPrompt]:
    """Prompts for the notes `texts`, in their order.

    A note keeps its first `max_note_tokens` tokens, or fewer where the model's `context_length` is smaller; what was
    cut is recorded. Raises InputError when the question leaves no room for a note.
    """
    question_ids = _question_ids(tokenizer, question)
    first = _bos(tokenizer)
    room = max_note_tokens
    if context_length is not None:
        room = min(room, context_length - len(first) - len(question_ids))
    if room < 1:
        raise InputError(
            f"the model's context of {context_length} tokens leaves no room for a note beside a question of "
            f"{len(question_ids)} tokens; use a model with a longer context"
        )
    encoded = []
    for note_ids in _plain_ids(tokenizer, texts):
        kept = note_ids[:room]
        encoded.append(
            EncodedPrompt(first + kept + question_ids, len(kept), len(note_ids) - len(kept), len(question_ids))
        )
    return encoded


def option_token_ids(tokenizer: Any, question: Question) -> list[int]:
    """The token that each option adds after `Answer:`. Raises InputError when one is not a single token of its own.

    The token is read in its place, behind the question: SentencePiece writes a text's first space differently.
    """
    prompt = render_question(question)
    letters = LETTERS[: len(question.options)]
    before, *answered = _plain_ids(tokenizer, [prompt, *(f"{prompt} {letter}" for letter in letters)])
    found = []
    for letter, ids in zip(letters, answered, strict=True):
        if ids[: len(before)] != before:
            raise InputError(
                f"tokenizer: it merges 'Answer:' with the option ' {letter}', so there is no answer position; "
                "use a tokenizer that keeps them apart"
            )
        added = ids[len(before) :]
        if len(added) != 1:
            raise InputError(
                f"tokenizer: the option ' {letter}' takes {len(added)} tokens, one is needed; "
                "use a tokenizer with the capital letters in its vocabulary"
            )
        found.append(added[0])
    if len(set(found)) < len(found):
        raise InputError("tokenizer: two options have the same token; use a tokenizer that tells capitals apart")
    return found


def score_prompts(
    model: Any, encoded: Sequence[EncodedPrompt], option_ids: Sequence[int], *, batch_tokens: int, pad_id: int
) -> NDArray[np.float64]:
    """Logits of the options at the answer position, a row a prompt in the order given; the plain path.

    `batch_tokens` bounds the tokens of a forward, padding included; a longer prompt runs alone. `pad_id` may be any
    token of the vocabulary: nothing that is read depends on it.
    """
    import torch

    logits_NK = np.empty((len(encoded), len(option_ids)), dtype=np.float64)
    lengths = [len(prompt.ids) for prompt in encoded]
    options = torch.tensor(list(option_ids), device=model.device)
    with _evaluating(model):
        for rows in _batches(sorted(range(len(encoded)), key=lambda row: -lengths[row]), lengths, batch_tokens):
            tokens_BT = _padded([encoded[row].ids for row in rows], pad_id, model.device)
            last_B1 = torch.tensor([[lengths[row] - 1] for row in rows], device=model.device)
            logits_BV = _logits_at(model, last_B1, input_ids=tokens_BT, use_cache=False)
            logits_NK[rows] = logits_BV[:, options].double().cpu().numpy()
    return logits_NK


def score_prompt_sets(
    model: Any, sets: dict[str, PromptSet], *, batch_tokens: int, pad_id: int
) -> dict[str, NDArray[np.float64]]:
    """`score_prompts` of several questions at once: a note that several of them ask about is read once."""
    names = list(sets)
    logits = {
        name: np.empty((len(asked.encoded), len(asked.option_ids)), dtype=np.float64) for name, asked in sets.items()
    }
    alone: dict[str, list[int]] = {name: [] for name in names}
    shared: dict[tuple[str, ...], list[tuple[tuple[int, ...], dict[str, list[int]]]]] = {}
    for prefix, rows_by_set in _rows_by_prefix(sets).items():
        if len(rows_by_set) == 1 or not prefix:
            for name, rows in rows_by_set.items():
                alone[name] += rows
        else:
            shared.setdefault(tuple(rows_by_set), []).append((prefix, rows_by_set))
    for name, rows in alone.items():
        if rows:
            prompts = [sets[name].encoded[row] for row in rows]
            logits[name][rows] = score_prompts(
                model, prompts, sets[name].option_ids, batch_tokens=batch_tokens, pad_id=pad_id
            )
    with _evaluating(model):
        for asking, notes in shared.items():
            notes.sort(key=lambda note: -len(note[0]))
            lengths = [len(prefix) for prefix, _ in notes]
            for batch in _batches(range(len(notes)), lengths, batch_tokens):
                scored = _score_on_cache(model, [notes[i][0] for i in batch], [sets[n] for n in asking], pad_id)
                for name, logits_BK in zip(asking, scored, strict=True):
                    for i, row_logits in zip(batch, logits_BK, strict=True):
                        logits[name][notes[i][1][name]] = row_logits
    return logits


def option_probabilities(logits_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the options (5.4)."""
    shifted = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def pad_id_of(tokenizer: Any) -> int:
    """A token id to pad with; which one does not matter."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _score_on_cache(
    model: Any, prefixes: list[tuple[int, ...]], asked: list[PromptSet], pad_id: int
) -> list[NDArray[np.float64]]:
    import torch

    lengths_B = torch.tensor([len(prefix) for prefix in prefixes], device=model.device)
    tokens_BT = _padded(prefixes, pad_id, model.device)
    batch, width = tokens_BT.shape
    cache = model.base_model(input_ids=tokens_BT, use_cache=True).past_key_values
    note_mask_BT = torch.arange(width, device=model.device) < lengths_B[:, None]
    scored = []
    for prompts in asked:
        example = prompts.encoded[0]
        question_Q = torch.tensor(example.ids[-example.question_tokens :], device=model.device)
        places_BQ = lengths_B[:, None] + torch.arange(len(question_Q), device=model.device)
        mask = torch.cat([note_mask_BT, torch.ones_like(places_BQ, dtype=torch.bool)], dim=1)
        logits_BV = _logits_at(
            model,
            -1,
            input_ids=question_Q.expand(batch, -1),
            past_key_values=cache,
            use_cache=True,
            attention_mask=mask.long(),
            position_ids=places_BQ,
        )
        scored.append(logits_BV[:, prompts.option_ids].double().cpu().numpy())
        cache.crop(-len(question_Q))
    return scored


def _logits_at(model: Any, position: Any, **inputs: Any) -> Any:
    """Logits of the whole vocabulary at one position a row: `position` is a (B, 1) tensor of indices, or -1."""
    import torch

    keep = 1 if isinstance(position, int) else position
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits_BTV = model(**inputs, logits_to_keep=keep).logits
    else:  # an unknown keyword would be swallowed and ignored
        logits_BTV = model(**inputs).logits
        rows = torch.arange(len(logits_BTV), device=logits_BTV.device)[:, None]
        logits_BTV = logits_BTV[:, -1:] if isinstance(position, int) else logits_BTV[rows, position]
    if logits_BTV.shape[1] != 1:
        raise RuntimeError(f"{type(model).__name__} gave logits at {logits_BTV.shape[1]} positions, not at one")
    return logits_BTV[:, 0]


def _rows_by_prefix(sets: dict[str, PromptSet]) -> dict[tuple[int, ...], dict[str, list[int]]]:
    found: dict[tuple[int, ...], dict[str, list[int]]] = {}
    for name, asked in sets.items():
        for row, prompt in enumerate(asked.encoded):
            prefix = tuple(prompt.ids[: len(prompt.ids) - prompt.question_tokens])
            found.setdefault(prefix, {}).setdefault(name, []).append(row)
    return found


def _batches(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Cut an order of falling lengths into batches whose padded size stays within the budget."""
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _padded(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> Any:
    import torch

    width = max(len(row) for row in rows)
    tokens = np.full((len(rows), width), pad_id, dtype=np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(tokens).to(device)


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """No gradients, no dropout; the model's mode is given back."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts without BOS or EOS; special tokens spelt out in a text stay text."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
    )
    return [list(ids) for ids in encoded["input_ids"]]


def _question_ids(tokenizer: Any, question: Question) -> list[int]:
    """Ids of the question as it reads after a text: SentencePiece would write a space before it otherwise."""
    prompt, anchor = render_question(question), "x"
    alone, before, after = _plain_ids(tokenizer, [prompt, anchor, anchor + prompt])
    return after[len(before) :] if after[: len(before)] == before else alone


def _bos(tokenizer: Any) -> list[int]:
    """BOS where the tokenizer's own rule starts a text with it, as lm-eval and the model's makers do."""
    started = tokenizer("x")["input_ids"]
    bos = tokenizer.bos_token_id
    return [int(bos)] if bos is not None and started and started[0] == bos else []
