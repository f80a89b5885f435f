"""Task rows as training data: notes with the questions asked of them, and the order in which they are drawn.

Tasks that ask about the same note share it: a pack is one note with all its questions, so that the note runs through
the model once (packs.py). `share_notes: false` makes packs of one question each, as a single task does anyway.

Draws. Packs of one note type form a group, dealt in decks: a deck is a systematic resample of the group by weight, in
an order keyed by seed and deck, so pack n of a run is a function of n. Without `balance` every pack is once in each
deck. With it a pack weighs the product of f_t(label) over its tasks, f_t = 1/sqrt(n) or 1/n of the class: rare classes
come more often, and log f_t added to the option logits inside the loss gives back the cohort's probabilities (exact
when a note's outcomes are independent given its text; what is common to all options cancels in the softmax).

Only the splits that a model learns from can be read here: the rows of a test split are opened by `evaluate` alone.

Fewer examples (`finetune.examples`): within each class the rows stand in an order keyed by seed and note, and classes
are dealt out in their shares (draw_examples). So the fewer lie among the more, each class has its share to within a
row, and tasks that share notes go on sharing them.

An even mix: a group gives as many packs as bring batch_size / tasks rows of each of its tasks; where some notes lack
a task's question (its cohort is smaller), its rows weigh that much more in the loss. Rows are counted by task.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lang1.config import FinetuneConfig
from lang1.corpus.hashes import hash_fraction
from lang1.errors import InputError
from lang1.scoring.options import encode_prompts, option_token_ids
from lang1.tasks import prompts
from lang1.tasks.prompts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

LearningSplit = Literal["train", "val"]
"""the splits that a model may learn or choose from"""
READ = ("questions.json", "*/train.parquet", "*/val.parquet")
"""the files of a tasks folder that finetuning reads"""
TEXTS_A_BATCH = 1024
"""texts in memory beside those that are kept"""
Encode = Callable[[list[str]], list[list[int]]]
COLUMNS = ["row_id", "patient_id", "note_hash", "note_type", "label"]
"""what rows are drawn by; the text of those that are drawn is read after"""


@dataclass(frozen=True)
class AskedTask:
    """One task as the model sees it."""

    task: str
    question: Question
    ids: NDArray[np.int64]
    """the question's tokens, which follow the note's; none for an encoder"""
    option_ids: list[int]
    """the token of each option; of an encoder, its output"""
    log_factors: list[float]
    """log f of each option's class: added to the logits in the training loss; zeros without balance"""


@dataclass(frozen=True)
class Pack:
    """A note and the questions asked of it."""

    note: int
    """index into Rows.texts"""
    asked: tuple[tuple[int, int], ...]
    """(index of the task, label)"""
    rows: tuple[str, ...]
    """row_id of each question"""


@dataclass(frozen=True)
class Group:
    """Packs of one note type, with their weights (mean 1), and how many a step takes."""

    packs: list[Pack]
    weights: NDArray[np.float64]
    per_step: float
    phase: float

    def drawn(self, seed: int, step: int) -> list[Pack]:
        """The packs of a step."""
        first, last = (int(np.floor(s * self.per_step + self.phase)) for s in (step, step + 1))
        size, weights = len(self.packs), self.weights.tobytes()
        decks = {number: _deck(weights, seed, number) for number in {n // size for n in range(first, last)}}
        return [self.packs[decks[n // size][n % size]] for n in range(first, last)]


@dataclass
class Rows:
    """The rows of one split, by pack; notes are tokenised when first needed and kept."""

    tasks: list[AskedTask]
    texts: list[str]
    packs: list[Pack]
    tokenizer: Any
    max_note_tokens: int
    context_length: int | None
    hashes: list[tuple[str, str]]
    """(note_hash, patient_id) of every row"""
    classes: dict[str, list[int]]
    """by task, rows of each option"""
    width_multiple: int = 1
    """a batch is padded to a multiple of so many tokens"""
    pad: int = 0
    """the token that it is padded with"""
    encode: Encode | None = None
    """texts to tokens, of a model that reads the note alone; None: as a prompt's note, ahead of the question"""
    is_ragged: bool = False
    """the model reads a batch without its padding (models/ragged.py)"""
    _notes: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    def notes(self, packs: Sequence[Pack]) -> list[NDArray[np.int64]]:
        """Tokens of the packs' notes, with BOS where the tokenizer has one."""
        missing = sorted({pack.note for pack in packs} - self._notes.keys())
        if missing:
            found = (self.encode or self._before_question)([self.texts[i] for i in missing])
            self._notes.update((i, np.array(ids, dtype=np.int64)) for i, ids in zip(missing, found, strict=True))
        return [self._notes[pack.note] for pack in packs]

    def _before_question(self, texts: list[str]) -> list[list[int]]:
        longest = max(self.tasks, key=lambda task: len(task.ids)).question
        encoded = encode_prompts(self.tokenizer, texts, longest, self.max_note_tokens, self.context_length)
        return [prompt.ids[: len(prompt.ids) - prompt.question_tokens] for prompt in encoded]


def read_questions(tasks: Path, names: Sequence[str], tokenizer: Any) -> list[AskedTask]:
    """The questions of the task folder in tokens, without balance factors."""
    questions = prompts.read_questions(tasks)
    found = []
    for name in names:
        question = questions[name]
        (example,) = encode_prompts(tokenizer, ["x"], question, 1)
        found.append(
            AskedTask(
                name,
                question,
                np.array(example.ids[-example.question_tokens :], dtype=np.int64),
                option_token_ids(tokenizer, question),
                [0.0] * len(question.options),
            )
        )
    return found


def read_rows(
    folder: Path,
    split: LearningSplit,
    tasks: list[AskedTask],
    tokenizer: Any,
    cfg: FinetuneConfig,
    context_length: int | None,
    *,
    seed: int,
    share_notes: bool | None = None,
    width_multiple: int = 1,
    pad: int = 0,
    encode: Encode | None = None,
) -> Rows:
    """The rows of `split` as packs in order of first appearance: of train at most `cfg.examples` a task, of val at most
    `cfg.val_rows`, drawn by hash. `share_notes` stands for the configuration's where it is given.

    Raises InputError for rows that no tasks folder of ours holds.
    """
    if split not in get_args(LearningSplit):
        raise ValueError(f"{split}: rows of a test split are opened by lang1 evaluate alone")
    share = cfg.share_notes if share_notes is None else share_notes
    texts: dict[str, int] = {}
    asked_of: dict[tuple[str, str, int, int], list[tuple[int, int, str, int]]] = {}
    hashes, classes = [], {}
    for index, task in enumerate(tasks):
        path = folder / task.task / f"{split}.parquet"
        rows = _read_table(path)
        for row in rows:
            _check_label(row, task, split)
        rows = draw_examples(rows, cfg.examples, seed) if split == "train" else _draw(rows, cfg.val_rows, seed)
        _read_texts(path, rows)
        classes[task.task] = [sum(row["label"] == k for row in rows) for k in range(len(task.option_ids))]
        times: dict[str, int] = {}  # the same text in two rows of a task: two packs
        for row in rows:
            note = row["note_hash"]
            times[note] = times.get(note, 0) + 1
            text = texts.setdefault(row["text"], len(texts))
            key = (row["note_type"], note, times[note], -1 if share else index)
            asked_of.setdefault(key, []).append((index, row["label"], row["row_id"], text))
            hashes.append((note, row["patient_id"]))
    packs = [
        Pack(
            note=asked[0][3], asked=tuple((t, label) for t, label, _, _ in asked), rows=tuple(r for _, _, r, _ in asked)
        )
        for asked in asked_of.values()
    ]
    room = cfg.max_note_tokens
    return Rows(
        tasks, list(texts), packs, tokenizer, room, context_length, hashes, classes, width_multiple, pad, encode
    )


def draw_examples(rows: list[dict[str, Any]], most: int | None, seed: int) -> list[dict[str, Any]]:
    """At most `most` rows, in their order: each class in its share to within a row, a smaller draw within a larger.

    Rows are dealt out one by one, to the class furthest behind of those below their share: the quota method (Balinski
    and Young, Am. Math. Mon. 1975;82:701-30). Largest remainders would not nest; rounding alone may be two rows off.
    """
    if most is None or len(rows) <= most:
        return rows
    by_class: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        by_class.setdefault(row["label"], []).append(place)
    given = dict.fromkeys(sorted(by_class), 0)
    for dealt in range(1, most + 1):
        below = [label for label in given if given[label] * len(rows) < dealt * len(by_class[label])]
        given[max(below, key=lambda label: len(by_class[label]) / (given[label] + 1))] += 1
    drawn: list[int] = []
    for label, places in by_class.items():
        places.sort(key=lambda i: (hash_fraction(seed, rows[i]["note_hash"]), rows[i]["row_id"]))
        drawn += places[: given[label]]
    return [rows[place] for place in sorted(drawn)]


def _draw(rows: list[dict[str, Any]], most: int, seed: int) -> list[dict[str, Any]]:
    if len(rows) <= most:
        return rows
    return sorted(rows, key=lambda row: (hash_fraction(seed, row["row_id"]), row["row_id"]))[:most]


def _read_table(path: Path) -> list[dict[str, Any]]:
    """All rows, each with its `place` in the file, without the texts."""
    import pyarrow.parquet as pq

    with _read_as_rows(path):
        rows: list[dict[str, Any]] = pq.read_table(path, columns=COLUMNS).to_pylist()
    return [row | {"place": place} for place, row in enumerate(rows)]


def _read_texts(path: Path, rows: list[dict[str, Any]]) -> None:
    """Give the rows their `text`."""
    import pyarrow.parquet as pq

    first, wanted = 0, iter(sorted(rows, key=lambda row: int(row["place"])))
    row = next(wanted, None)
    with _read_as_rows(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(TEXTS_A_BATCH, columns=["text"]):
            while row is not None and row["place"] < first + len(batch):
                row["text"] = batch["text"][row["place"] - first].as_py()
                row = next(wanted, None)
            first += len(batch)


@contextlib.contextmanager
def _read_as_rows(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as task rows ({type(error).__name__}); run lang1 tasks again") from None


def _check_label(row: dict[str, Any], task: AskedTask, split: str) -> None:
    if row["label"] is None or not 0 <= row["label"] < len(task.option_ids):
        raise InputError(
            f"{task.task}/{split}.parquet: row {row['row_id']}: label {row['label']} is no option of "
            f"the question's {len(task.option_ids)}; run lang1 tasks again with --force"
        )


def balance_factors(rows: Rows, balance: str) -> list[list[float]]:
    """log f of every class by task: 0 without balance or for a class that has no row."""
    power = {"none": 0.0, "sqrt": -0.5, "even": -1.0}[balance]
    factors = []
    for index, task in enumerate(rows.tasks):
        counts = np.zeros(len(task.option_ids))
        for pack in rows.packs:
            for asked, label in pack.asked:
                if asked == index:
                    counts[label] += 1
        shares = np.where(counts > 0, counts / max(1.0, counts.sum()), 1.0)
        factors.append([float(value) for value in power * np.log(shares)])
    return factors


def make_groups(rows: Rows, batch_size: int) -> tuple[list[Group], list[float]]:
    """The groups to draw from, and the loss weight of a row of each task."""
    by_tasks: dict[tuple[int, ...], list[Pack]] = {}
    for pack in rows.packs:
        by_tasks.setdefault(tuple(task for task, _ in pack.asked), []).append(pack)
    groups: list[Group] = []
    task_weights = [1.0] * len(rows.tasks)
    each = batch_size / len(rows.tasks)
    families = _connected(list(by_tasks))
    for number, family in enumerate(families):
        packs = [pack for members in family for pack in by_tasks[members]]
        weights = np.array([np.exp(sum(rows.tasks[t].log_factors[label] for t, label in pack.asked)) for pack in packs])
        weights *= len(packs) / weights.sum()
        in_family = sorted({task for members in family for task in members})
        per_pack = {
            task: float(sum(w for pack, w in zip(packs, weights, strict=True) if any(t == task for t, _ in pack.asked)))
            / len(packs)
            for task in in_family
        }
        per_step = each * len(in_family) / sum(per_pack.values())
        groups.append(Group(packs, weights, per_step, (number + 0.5) / len(families)))
        for task in in_family:
            task_weights[task] = each / (per_step * per_pack[task])
    return groups, task_weights


def _connected(sets: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Sets of tasks that share a task belong to one family."""
    families: list[list[tuple[int, ...]]] = []
    for members in sorted(sets):
        touching = [family for family in families if any(set(members) & set(other) for other in family)]
        merged = [members, *(other for family in touching for other in family)]
        families = [family for family in families if family not in touching] + [merged]
    return sorted(sorted(family) for family in families)


@lru_cache(maxsize=8)
def _deck(weights: bytes, seed: int, number: int) -> NDArray[np.int64]:
    weight = np.frombuffer(weights, dtype=np.float64)
    key = np.array([seed & (2**64 - 1), number << 32 | zlib.crc32(weights)], dtype=np.uint64)
    random = np.random.Generator(np.random.Philox(key=key))
    order = random.permutation(len(weight))
    reached = np.cumsum(weight[order])
    marks = (np.arange(len(weight)) + random.random()) * (reached[-1] / len(weight))
    picked = order[np.minimum(np.searchsorted(reached, marks, "right"), len(weight) - 1)]
    return random.permutation(picked)
