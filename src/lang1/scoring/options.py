"""From a note, a question and a model to the logits of the options: the only place that knows the answer position.

The note is tokenised alone and its head kept; the question is tokenised as it reads after a text and appended, so it
is never cut; BOS stands first where the tokenizer's own rule puts one. The answer position is the prompt's last
token, and an option is the one token that ` A` adds after `Answer:`. Text is never read as special tokens: a note
that says `</s>` says so in plain text.

Cost: one forward a prompt, in batches of similar length, right-padded: under causal attention no later token reaches
the answer position, so no mask is needed. Logits, and in a Llama the last layer, are made at that position only. Tasks
that share notes share their computation (`score_prompt_sets`): a note and all its questions are one row. Equal to a
plain forward to 1e-5 (docs/decisions/0005).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lang1.errors import InputError
from lang1.tasks.prompts import LETTERS, Question, render_question

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHOD = "one-token"
"""how the probabilities of a score file were read: each option is one token at the answer position"""
ANSWER_ROOM = 2
"""positions of a model's context that a prompt leaves free: an option behind it, and the token that a server always
writes; left free in memory and in finetuning too, so that a prompt is the same wherever it is asked"""
LEAST_NOTE = 32
"""tokens of a note for which examples must leave room, where `max_note_tokens` is not smaller"""
WIDTHS = 32
"""a Llama's rows are padded to a multiple of so many tokens: a processor's kernels are built anew for each shape and
kept, which for a shape a batch took more memory than the model's activations"""


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
    examples: str = "",
) -> list[EncodedPrompt]:
    """Prompts for the notes `texts`, in their order, all with the same question; see `encode_each`."""
    asked = [(text, question, ANSWER_ROOM) for text in texts]
    return encode_each(tokenizer, asked, max_note_tokens, context_length, examples)


def encode_each(
    tokenizer: Any,
    asked: Sequence[tuple[str, Question, int]],
    max_note_tokens: int,
    context_length: int | None = None,
    examples: str = "",
) -> list[EncodedPrompt]:
    """Prompts for (note, question, positions that its answer needs), in their order.

    A note keeps its first `max_note_tokens` tokens, or fewer where the model's `context_length` is smaller; what was
    cut is recorded. `examples` is the text of answered examples (shots.py): it stands before every note, is read as
    one text with it, and is never cut. Raises InputError when the question leaves no room for a note.
    """
    first = bos(tokenizer)
    before = len(plain_ids(tokenizer, [examples])[0]) if examples else 0
    tails = {question: question_ids(tokenizer, question) for question in dict.fromkeys(q for _, q, _ in asked)}
    whole = plain_ids(tokenizer, [examples + text for text, _, _ in asked])
    encoded = []
    for (_, question, answer_room), ids in zip(asked, whole, strict=True):
        tail = tails[question]
        room = max_note_tokens
        if context_length is not None:
            room = min(room, context_length - answer_room - len(first) - before - len(tail))
        if room < (min(LEAST_NOTE, max_note_tokens) if examples else 1):
            raise InputError(_no_room(context_length, before, len(tail)))
        note_tokens = max(0, len(ids) - before)
        kept = min(room, note_tokens)
        encoded.append(EncodedPrompt(first + ids[: before + kept] + tail, kept, note_tokens - kept, len(tail)))
    return encoded


def _no_room(context_length: int | None, before: int, tail: int) -> str:
    beside = f"examples of {before} tokens and " if before else ""
    remedy = "lower evaluate.shots or evaluate.shot_tokens, or " if before else ""
    return (
        f"the model's context of {context_length} tokens leaves no room for a note beside {beside}a question of "
        f"{tail} tokens; {remedy}use a model with a longer context"
    )


def option_token_ids(tokenizer: Any, question: Question) -> list[int]:
    """The token that each option adds after `Answer:`. Raises InputError when one is not a single token of its own.

    The token is read in its place, behind the question: SentencePiece writes a text's first space differently.
    """
    letters = LETTERS[: len(question.options)]
    found = []
    for letter, added in zip(letters, answer_ids(tokenizer, question, letters), strict=True):
        if len(added) != 1:
            raise InputError(
                f"tokenizer: the option ' {letter}' takes {len(added)} tokens, one is needed; "
                "use a tokenizer with the capital letters in its vocabulary"
            )
        found.append(added[0])
    if len(set(found)) < len(found):
        raise InputError("tokenizer: two options have the same token; use a tokenizer that tells capitals apart")
    return found


def answer_ids(tokenizer: Any, question: Question, answers: Sequence[str]) -> list[list[int]]:
    """The tokens that each answer, after a space, adds to a prompt that ends with `question`.

    Raises InputError where there is no place between the two: the tokenizer merges across it.
    """
    prompt = render_question(question)
    before, *answered = plain_ids(tokenizer, [prompt, *(f"{prompt} {answer}" for answer in answers)])
    for answer, ids in zip(answers, answered, strict=True):
        if ids[: len(before)] != before:
            raise InputError(
                f"tokenizer: it merges 'Answer:' with the option ' {answer}', so there is no answer position; "
                "use a tokenizer that keeps them apart"
            )
    return [ids[len(before) :] for ids in answered]


def score_prompts(
    model: Any,
    encoded: Sequence[EncodedPrompt],
    option_ids: Sequence[int],
    *,
    batch_tokens: int,
    pad_id: int,
    share_prefix: bool = False,
) -> NDArray[np.float64]:
    """Logits of the options at the answer position, a row a prompt in the order given.

    `batch_tokens` bounds the tokens of a forward, padding included; a longer prompt runs alone. `pad_id` may be any
    token of the vocabulary: nothing that is read depends on it. With `share_prefix` what all prompts begin with, their
    shots, runs through the model once (shared.py).
    """
    import torch

    from lang1.models.fast import answer_logits
    from lang1.scoring.shared import read_prefix

    logits_NK = np.empty((len(encoded), len(option_ids)), dtype=np.float64)
    multiple = width_multiple(model)
    with evaluating(model):
        prefix = read_prefix(model, [prompt.ids for prompt in encoded]) if share_prefix else None
        shared = 0 if prefix is None else prefix.length
        rest = [prompt.ids[shared:] for prompt in encoded]
        lengths = [len(ids) for ids in rest]
        costs = [shared + round_up(length, multiple) for length in lengths]  # every row holds the prefix's keys
        for rows in batches(longest_first(lengths), costs, batch_tokens):
            mine, ends = [rest[row] for row in rows], [[lengths[row] - 1] for row in rows]
            if prefix is None:
                tokens_BT, ends_B1 = padded(mine, pad_id, model.device, multiple), torch.tensor(ends)
                logits_B1K = answer_logits(model, tokens_BT, None, None, ends_B1.to(model.device), option_ids)
            else:
                logits_B1K = prefix.logits(mine, ends, pad_id)[:, :, list(option_ids)]
            logits_NK[rows] = logits_B1K[:, 0].double().cpu().numpy()
    return logits_NK


def score_prompt_sets(
    model: Any, sets: dict[str, PromptSet], *, batch_tokens: int, pad_id: int
) -> dict[str, NDArray[np.float64]]:
    """`score_prompts` of several questions at once; in a Llama, a note that several ask about is read once.

    Other classes read every prompt by itself: a mask of ours would replace their own, such as a sliding window's.
    """
    logits = {
        name: np.empty((len(asked.encoded), len(asked.option_ids)), dtype=np.float64) for name, asked in sets.items()
    }
    alone, shared = _divide(sets, may_share=type(model).__name__ == "LlamaForCausalLM")
    for name, rows in alone.items():
        prompts, option_ids = [sets[name].encoded[row] for row in rows], sets[name].option_ids
        logits[name][rows] = score_prompts(
            model, prompts, option_ids, batch_tokens=batch_tokens, pad_id=pad_id, share_prefix=True
        )
    with evaluating(model):
        for names, notes in shared.items():
            asked = [sets[name] for name in names]
            questions = _questions(asked)
            head = _common_head(questions)
            tails = sum(len(question) - head for question in questions)
            costs = [round_up(len(note.prefix) + head, WIDTHS) + tails for note in notes]
            for batch in batches(range(len(notes)), costs, batch_tokens):
                scored = _score_packs(model, [notes[i].prefix for i in batch], asked, pad_id)
                for name, logits_BK in zip(names, scored, strict=True):
                    for i, row_logits in zip(batch, logits_BK, strict=True):
                        logits[name][notes[i].rows[name]] = row_logits
    return logits


def option_probabilities(logits_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the options (5.4)."""
    shifted = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def check_finite(model: Path, logits_NK: NDArray[np.float64], of: str) -> None:
    """Raise InputError for a model whose numbers are none; `of` says which rows these are."""
    broken = int((~np.isfinite(logits_NK)).any(axis=1).sum())
    if broken:
        raise InputError(
            f"{model}: gives no finite logits for {broken} of {len(logits_NK)} rows{of}; "
            "its weights are broken or its training diverged"
        )


def pad_id_of(tokenizer: Any) -> int:
    """A token id to pad with; which one does not matter."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


@dataclass(frozen=True)
class _Note:
    """A note's tokens, with BOS, and the rows of each question that ask about it."""

    prefix: tuple[int, ...]
    rows: dict[str, list[int]]


def _divide(
    sets: dict[str, PromptSet], *, may_share: bool
) -> tuple[dict[str, list[int]], dict[tuple[str, ...], list[_Note]]]:
    """Rows that run alone, by question; and notes that several questions ask about, longest first, by who asks."""
    if not may_share:
        return {name: list(range(len(asked.encoded))) for name, asked in sets.items()}, {}
    found: dict[tuple[int, ...], dict[str, list[int]]] = {}
    for name, asked in sets.items():
        for row, prompt in enumerate(asked.encoded):
            prefix = tuple(prompt.ids[: len(prompt.ids) - prompt.question_tokens])
            found.setdefault(prefix, {}).setdefault(name, []).append(row)
    alone: dict[str, list[int]] = {}
    shared: dict[tuple[str, ...], list[_Note]] = {}
    for prefix, rows in found.items():
        if len(rows) == 1:
            for name, mine in rows.items():
                alone.setdefault(name, []).extend(mine)
        else:
            shared.setdefault(tuple(rows), []).append(_Note(prefix, rows))
    for notes in shared.values():
        notes.sort(key=lambda note: -len(note.prefix))
    return alone, shared


def _score_packs(
    model: Any, prefixes: list[tuple[int, ...]], asked: list[PromptSet], pad_id: int
) -> list[NDArray[np.float64]]:
    """One forward for notes and all their questions, a row: note, padding, question, question, ...

    A question sees its note and itself, and its positions go on from its note's end. What all questions begin with
    counts as part of the note.
    """
    import torch

    from lang1.models.fast import answer_logits

    questions = _questions(asked)
    head = _common_head(questions)
    notes = [[*prefix, *questions[0][:head]] for prefix in prefixes]
    notes_BW = padded(notes, pad_id, model.device, WIDTHS)
    lengths_B1 = torch.tensor([[len(note)] for note in notes], device=model.device)
    place_W = torch.arange(notes_BW.shape[1], device=model.device)
    sizes = [len(question) - head for question in questions]
    tail_Q = torch.tensor([token for question in questions for token in question[head:]], device=model.device)
    place_Q = torch.tensor([i for size in sizes for i in range(size)], device=model.device)
    owner_Q = torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)], device=model.device)
    ends_R = len(place_W) - 1 + torch.tensor(sizes, device=model.device).cumsum(0)
    logits_BRV = answer_logits(
        model,
        torch.cat([notes_BW, tail_Q.expand(len(notes), -1)], dim=1),
        torch.cat([place_W.expand(len(notes), -1), lengths_B1 + place_Q], dim=1),
        _pack_mask(place_W < lengths_B1, owner_Q),
        ends_R.expand(len(notes), -1),
    )
    return [logits_BRV[:, r, prompts.option_ids].double().cpu().numpy() for r, prompts in enumerate(asked)]


def _questions(asked: Sequence[PromptSet]) -> list[list[int]]:
    return [prompts.encoded[0].ids[-prompts.encoded[0].question_tokens :] for prompts in asked]


def _common_head(questions: Sequence[Sequence[int]]) -> int:
    """Tokens that all questions begin with, short of their last, which is read."""
    same = [len(set(tokens)) == 1 for tokens in zip(*(question[:-1] for question in questions), strict=False)]
    return same.index(False) if False in same else len(same)


def _pack_mask(real_BW: Any, owner_Q: Any) -> Any:
    """(B, 1, T, T): what each position of a pack sees. Padding sees itself: seeing nothing would give NaN."""
    import torch

    owner_T = torch.cat([torch.full_like(owner_Q[:1], -1).expand(real_BW.shape[1]), owner_Q])
    seen_TT = ((owner_T == -1) | (owner_T == owner_T[:, None])).tril()
    real_BT = torch.cat([real_BW, torch.ones_like(owner_Q, dtype=torch.bool).expand(len(real_BW), -1)], dim=1)
    itself_TT = torch.eye(len(owner_T), dtype=torch.bool, device=real_BW.device)
    return ((seen_TT & real_BT[:, None]) | itself_TT)[:, None]


def width_multiple(model: Any) -> int:
    """What a model's rows are padded to a multiple of; classes other than Llama may have no position to spare."""
    return WIDTHS if type(model).__name__ == "LlamaForCausalLM" else 1


def round_up(length: int, multiple: int) -> int:
    """The next multiple."""
    return -(-length // multiple) * multiple


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Places in an order of falling lengths."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def common_prefix(rows: Sequence[list[int]]) -> int:
    """Tokens that all rows begin with, short of the last one of each, which is read."""
    if not rows:
        return 0
    first, last = min(rows), max(rows)  # as lists are ordered, what these two share all share
    most = min(len(row) for row in rows) - 1
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b or i >= most), most)


def batches(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Cut an order of falling lengths into batches whose padded size stays within the budget."""
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], pad_id: int, device: Any, multiple: int = 1) -> Any:
    """(B, T) token ids, padded on the right to a multiple of `multiple`."""
    import torch

    width = round_up(max(len(row) for row in rows), multiple)
    tokens = np.full((len(rows), width), pad_id, dtype=np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(tokens).to(device)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """No gradients, no dropout; the model's mode is given back."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():  # FSDP2 would keep inference tensors, and the next training step fail
            yield
    finally:
        model.train(was_training)


def in_precision(model: Any, dtype: Any) -> Any:
    """The block in which a model multiplies in `dtype`, bf16 over its fp32 weights or fp32."""
    import torch

    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts without BOS or EOS; special tokens spelt out in a text stay text."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
    )
    return [list(ids) for ids in encoded["input_ids"]]


def question_ids(tokenizer: Any, question: Question) -> list[int]:
    """Ids of the question as it reads after a text: SentencePiece would write a space before it otherwise."""
    prompt, anchor = render_question(question), "x"
    alone, before, after = plain_ids(tokenizer, [prompt, anchor, anchor + prompt])
    return after[len(before) :] if after[: len(before)] == before else alone


def bos(tokenizer: Any) -> list[int]:
    """BOS where the tokenizer's own rule starts a text with it, as lm-eval and the model's makers do."""
    started = tokenizer("x")["input_ids"]
    bos = tokenizer.bos_token_id
    return [int(bos)] if bos is not None and started and started[0] == bos else []
