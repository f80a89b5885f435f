"""Packs: the answers of plain prompts for fewer tokens, drawn in a fixed and balanced order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lang1.config import FinetuneConfig
from lang1.models.fast import takes_ragged, use_fast_attention
from lang1.models.load import load_model, load_tokenizer
from lang1.scoring.options import encode_prompts, score_prompts
from lang1.training import asked
from lang1.training import packs as packs_module
from lang1.training.asked import Rows, balance_factors, draw_examples, make_groups, read_questions, read_rows
from lang1.training.packs import answer_loss, make_batches, option_logits

TASKS = ["readmission", "mortality", "los", "cci", "denial"]


def read(tasks: Path, model_folder: Path, balance: str = "none", **changes: object) -> Rows:
    cfg = FinetuneConfig(max_note_tokens=20, **changes)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(model_folder)
    rows = read_rows(tasks, "train", read_questions(tasks, TASKS, tokenizer), tokenizer, cfg, 256, seed=1)
    factors = balance_factors(rows, balance)
    return replace(rows, tasks=[replace(t, log_factors=f) for t, f in zip(rows.tasks, factors, strict=True)])


@pytest.mark.parametrize("share", [True, False])
def test_packed_answers_equal_plain_scoring(tasks: Path, model_folder: Path, share: bool) -> None:
    rows = read(tasks, model_folder, share_notes=share)
    model, packs = load_model(model_folder), rows.packs[:12]
    found: dict[str, list[float]] = {}
    for batch in make_batches(rows, packs, 1000):
        with torch.no_grad():
            logits = option_logits(model, batch, rows.tasks)
        for row_id, values in zip(batch.row_ids, logits.tolist(), strict=True):
            found[row_id] = values
    for pack in packs:
        for (task, _), row_id in zip(pack.asked, pack.rows, strict=True):
            asked = rows.tasks[task]
            encoded = encode_prompts(rows.tokenizer, [rows.texts[pack.note]], asked.question, 20)
            (wanted,) = score_prompts(model, encoded, asked.option_ids, batch_tokens=1000, pad_id=0)
            assert found[row_id][: len(wanted)] == pytest.approx(list(wanted), abs=2e-5)


def test_one_note_carries_all_the_questions_about_it(tasks: Path, model_folder: Path) -> None:
    rows = read(tasks, model_folder)
    assert Counter(len(pack.asked) for pack in rows.packs) == {4: 240, 1: 240}
    alone = read(tasks, model_folder, share_notes=False)
    assert {len(pack.asked) for pack in alone.packs} == {1}
    assert len(alone.packs) == 5 * 240


@pytest.mark.parametrize("share", [True, False])
def test_every_batch_is_an_even_mix(tasks: Path, model_folder: Path, share: bool) -> None:
    rows = read(tasks, model_folder, share_notes=share)
    groups, weights = make_groups(rows, 20)
    assert weights == pytest.approx([1.0] * 5)
    for step in range(30):
        drawn = Counter(task for group in groups for pack in group.drawn(1, step) for task, _ in pack.asked)
        assert drawn == dict.fromkeys(range(5), 4)


def test_a_batch_that_does_not_divide_rotates_the_remainder(tasks: Path, model_folder: Path) -> None:
    groups, _ = make_groups(read(tasks, model_folder, share_notes=False), 13)
    per_step = [Counter(t for g in groups for p in g.drawn(1, s) for t, _ in p.asked) for s in range(25)]
    assert all(set(counts.values()) <= {2, 3} for counts in per_step)
    assert sum(per_step, Counter()) == dict.fromkeys(range(5), 65)


def test_without_balance_each_pack_comes_once_in_a_deck(tasks: Path, model_folder: Path) -> None:
    groups, _ = make_groups(read(tasks, model_folder), 20)
    for group in groups:
        steps = round(len(group.packs) / group.per_step)
        drawn = Counter(pack.rows for step in range(steps) for pack in group.drawn(1, step))
        assert len(drawn) == len(group.packs)
        assert set(drawn.values()) == {1}


def test_draws_are_a_function_of_seed_and_step(tasks: Path, model_folder: Path) -> None:
    groups, _ = make_groups(read(tasks, model_folder, balance="sqrt"), 20)
    again, _ = make_groups(read(tasks, model_folder, balance="sqrt"), 20)
    for group, other in zip(groups, again, strict=True):
        assert [p.rows for p in group.drawn(1, 17)] == [p.rows for p in other.drawn(1, 17)]
        assert [p.rows for p in group.drawn(1, 17)] != [p.rows for p in group.drawn(2, 17)]


def test_balance_draws_classes_by_their_factor_and_corrects_the_logits(tasks: Path, model_folder: Path) -> None:
    rows = read(tasks, model_folder, balance="even", share_notes=False)
    groups, _ = make_groups(rows, 20)
    mortality = next(g for g in groups if all(p.asked[0][0] == 1 for p in g.packs))
    drawn = Counter(p.asked[0][1] for s in range(300) for p in mortality.drawn(1, s))
    assert drawn[1] / (drawn[0] + drawn[1]) == pytest.approx(0.5, abs=0.01)
    shares = Counter(p.asked[0][1] for p in mortality.packs)
    ratio = np.exp(rows.tasks[1].log_factors[1] - rows.tasks[1].log_factors[0])
    assert ratio == pytest.approx(shares[0] / shares[1])


def test_the_corrected_loss_is_least_at_the_cohorts_probabilities(tasks: Path, model_folder: Path) -> None:
    """A model that knows no note and gives the cohort's base rates: no constant shift lowers the balanced loss."""
    rows = read(tasks, model_folder, balance="even", share_notes=False)
    groups, _ = make_groups(rows, 20)
    labels = [p.asked[0][1] for g in groups for s in range(120) for p in g.drawn(1, s) if p.asked[0][0] == 1]
    base = np.mean([p.asked[0][1] for p in rows.packs if p.asked[0][0] == 1])
    factors = torch.tensor(rows.tasks[1].log_factors)

    def loss(shift: float) -> float:
        logits = torch.tensor([0.0, float(np.log(base / (1 - base))) + shift]) + factors
        return float(torch.nn.functional.cross_entropy(logits.expand(len(labels), 2), torch.tensor(labels)))

    assert loss(0.0) < min(loss(-0.2), loss(0.2))


def test_the_loss_of_a_batch_does_not_depend_on_how_it_is_cut_or_padded(tasks: Path, model_folder: Path) -> None:
    rows = read(tasks, model_folder)
    model, packs = load_model(model_folder), rows.packs[:10]
    totals = []
    with torch.no_grad():
        for budget, multiple in ((300, 1), (10_000, 1), (10_000, 32)):
            batches = make_batches(replace(rows, width_multiple=multiple), packs, budget)
            assert all(batch.tokens.shape[1] % multiple == 0 for batch in batches)
            totals.append(sum(answer_loss(model, b, rows.tasks, [1.0] * 5).item() for b in batches))
    assert totals[1:] == pytest.approx(totals[:1] * 2, rel=1e-5)


@pytest.mark.parametrize(("budget", "forward"), [(10_000, 8), (400, 8), (150, 1), (400, 256), (20, 8)])
def test_batches_are_cut_where_padding_and_forwards_cost_the_least(
    budget: int, forward: int, tasks: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against every way to cut ten packs in the order of their lengths."""
    monkeypatch.setattr(packs_module, "FORWARD", forward)
    rows = read(tasks, model_folder)
    batches = make_batches(rows, rows.packs[:10], budget)
    lengths = sorted((int(n) for batch in batches for n in batch.lengths), reverse=True)
    assert len(lengths) == 10 and len(set(lengths)) > 3
    cheapest = float("inf")
    for cuts in product([False, True], repeat=9):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), 10]
        padded = [(end - start) * lengths[start] for start, end in pairwise(edges)]
        if all(n <= budget or end - start == 1 for n, (start, end) in zip(padded, pairwise(edges), strict=True)):
            cheapest = min(cheapest, sum(padded) + forward * len(padded))
    assert sum(batch.tokens.numel() + forward for batch in batches) == cheapest


@pytest.mark.parametrize("share", [True, False])
def test_read_without_padding_a_batch_has_the_gradients_of_packs_one_by_one(
    share: bool, tasks: Path, model_folder: Path
) -> None:
    model, plain = load_model(model_folder), load_model(model_folder)
    use_fast_attention(model, torch.float32)
    rows = replace(read(tasks, model_folder, share_notes=share), is_ragged=takes_ragged(model))
    assert rows.is_ragged
    packs = rows.packs[:12]
    for batch in make_batches(replace(rows, is_ragged=False), packs, 1):
        answer_loss(plain, batch, rows.tasks, [1.0] * 5).backward()
    for budget in (10_000, 300):
        model.zero_grad()
        batches = make_batches(rows, packs, budget)
        assert (len(batches) == 1) == (budget == 10_000)
        for batch in batches:
            answer_loss(model, batch, rows.tasks, [1.0] * 5).backward()
        for (name, one), (_, other) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
            assert one.grad is not None and other.grad is not None
            torch.testing.assert_close(one.grad, other.grad, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("budget", [1, 90, 150, 400, 10_000])
def test_batches_without_padding_are_as_few_and_as_even_as_can_be(budget: int, tasks: Path, model_folder: Path) -> None:
    """Against every way to cut ten packs in the order of their lengths."""
    rows = replace(read(tasks, model_folder), is_ragged=True)
    batches = make_batches(rows, rows.packs[:10], budget)
    filled = [int(batch.lengths.sum()) for batch in batches]
    assert sorted(row for b in batches for row in b.row_ids) == sorted(r for p in rows.packs[:10] for r in p.rows)
    assert all(tokens <= budget or len(batch.lengths) == 1 for tokens, batch in zip(filled, batches, strict=True))
    lengths, best = [int(n) for batch in batches for n in batch.lengths], (10, float("inf"))
    for cuts in product([False, True], repeat=9):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), 10]
        parts = [lengths[start:end] for start, end in pairwise(edges)]
        if all(sum(part) <= budget or len(part) == 1 for part in parts):
            best = min(best, (len(parts), max(map(sum, parts))))
    assert (len(batches), max(filled)) == best


def examples(count: int, seed: int = 1, most: int | None = None) -> list[dict[str, object]]:
    rows = [{"row_id": f"r{i}", "note_hash": f"n{i}", "label": 2 if i % 50 == 0 else i % 2} for i in range(count)]
    return draw_examples(rows, most, seed)


def test_fewer_examples_lie_among_the_more_with_each_class_in_its_share() -> None:
    whole = Counter(row["label"] for row in examples(5000))
    taken: set[object] = set()
    for most in (100, 300, 1000, 4000):
        drawn = examples(5000, most=most)
        ids = {row["row_id"] for row in drawn}
        assert len(ids) == most and taken <= ids
        taken = ids
        for label, rows in Counter(row["label"] for row in drawn).items():
            assert abs(rows - most * whole[label] / 5000) <= 1
    assert taken != {row["row_id"] for row in examples(5000, seed=2, most=4000)}
    assert examples(80, most=100) == examples(80)


def test_shares_are_kept_whatever_the_classes_and_the_number() -> None:
    """Rounding each class alone is more than a row off where many small ones stand beside a large one."""
    for counts in ([907, 31, 31, 31], [1003, 17, 17, 17, 17], [600, 100, 90, 80, 70, 60], [5, 4, 3, 2, 1]):
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        rows = [{"row_id": f"r{i}", "note_hash": f"n{i}", "label": label} for i, label in enumerate(labels)]
        taken: set[object] = set()
        for most in range(1, len(rows), 7):
            drawn = draw_examples(rows, most, 1)
            ids = {row["row_id"] for row in drawn}
            assert len(ids) == most and taken <= ids
            found, taken = Counter(row["label"] for row in drawn), ids
            for label, count in enumerate(counts):
                assert abs(found[label] - most * count / len(rows)) < 1, (counts, most)


@pytest.mark.parametrize("split", ["train", "val"])
def test_rows_that_are_drawn_have_the_texts_of_the_file(
    split: str, tasks: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The texts are read after the draw, batch by batch."""
    monkeypatch.setattr(asked, "TEXTS_A_BATCH", 7)
    cfg = FinetuneConfig(tasks=("los",), examples=25, val_rows=11)
    tokenizer = load_tokenizer(model_folder)
    rows = read_rows(tasks, split, read_questions(tasks, ["los"], tokenizer), tokenizer, cfg, 256, seed=1)  # type: ignore[arg-type]
    table = {row["row_id"]: row["text"] for row in pq.read_table(tasks / "los" / f"{split}.parquet").to_pylist()}
    assert len(rows.packs) == {"train": 25, "val": 11}[split] < len(table)
    for pack in rows.packs:
        assert rows.texts[pack.note] == table[pack.rows[0]]


def test_tasks_that_share_notes_go_on_sharing_them_among_few_examples(tasks: Path, model_folder: Path) -> None:
    rows = read(tasks, model_folder, examples=60)
    assert {task: sum(found) for task, found in rows.classes.items()} == dict.fromkeys(TASKS, 60)
    notes = sum(len(pack.asked) > 0 for pack in rows.packs if 0 not in dict(pack.asked))
    assert notes < 0.95 * 4 * 60, "no note is asked about twice"


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_share_out_every_row_once_in_as_many_batches(tasks: Path, model_folder: Path, ranks: int) -> None:
    rows = read(tasks, model_folder)
    for packs in (rows.packs[:10], rows.packs[:1]):
        shares = [make_batches(rows, packs, 150, rank, ranks) for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1
        ours = Counter(row for share in shares for b in share if b.is_counted for row in b.row_ids)
        assert ours == Counter(row for pack in packs for row in pack.rows)


def test_a_batch_that_only_keeps_step_gives_neither_loss_nor_gradient(tasks: Path, model_folder: Path) -> None:
    rows = read(tasks, model_folder)
    model = load_model(model_folder)
    (batch, *_) = make_batches(rows, rows.packs[:3], 10_000)
    loss = answer_loss(model, replace(batch, is_counted=False), rows.tasks, [1.0] * 5)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
