"""A finetuning step beside two plain loops: Hugging Face Trainer's way, and a careful one.

- `padded`: every prompt padded to the longest that there is, the model's own loss over the logits of all positions,
  one label a row (the answer), micro-batches of 8: what Trainer does with a tokenizer that pads to max_length.
- `careful`: the same loss as ours (the option tokens at the answer position), each micro-batch padded to its own
  longest, logits of all positions.

The 15M shape with a vocabulary of 32,000, fp32, 40 rows a step, the same weights, rows and AdamW. Prompts have 100 to
560 tokens. The first case asks five tasks, four of which share a note, the last one a single task. Each run is a fresh
process, the three in turn. `ratio` is the peer's median seconds a step over ours, `memory_ratio` our peak resident
memory over the peer's; the gradients of the first step must equal the careful loop's to 1e-5. `--samples 1 --rows 10`
is a short trial; on a machine that others use too, `cpu_ratio` says more than `ratio`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from step_shapes import SHAPES, VOCABULARY, fill

MICRO, STEPS = 8, 2
"""rows a micro-batch of the peers, steps that are measured after one that is not"""
OPTIONS = {"mortality": 2, "los": 4, "cci": 5, "denial": 2, "readmission": 2}
QUESTION_TOKENS = {"mortality": 32, "los": 52, "cci": 68, "denial": 33, "readmission": 38}
CASES = {"five tasks, four share a note": list(OPTIONS), "one task": ["mortality"]}
LETTER = 1000
"""token of the first option"""
SIDES = ("ours", "padded", "careful")


@dataclass(frozen=True)
class Row:
    """A prompt: a note, a question and the true option."""

    task: str
    note: int
    note_ids: list[int]
    ids: list[int]
    label: int


def rows_of(tasks: list[str], step: int, count: int) -> list[Row]:
    """The rows of a step, an even mix; tasks other than readmission ask about the same notes."""
    rng = np.random.default_rng(step)
    each = -(-count // len(tasks))
    notes: dict[tuple[str, int], list[int]] = {}
    made = []
    for number in range(each):
        for task in tasks:
            kind = "discharge" if task == "readmission" else "admission"
            if (kind, number) not in notes:
                notes[kind, number] = rng.integers(2000, VOCABULARY, rng.integers(68, 493)).tolist()
            question = np.random.default_rng(len(task)).integers(2000, VOCABULARY, QUESTION_TOKENS[task]).tolist()
            note = notes[kind, number]
            label = int(rng.integers(OPTIONS[task]))
            made.append(Row(task, list(notes).index((kind, number)), note, note + question, label))
    return made[:count]


def options_of(task: str) -> list[int]:
    return list(range(LETTER, LETTER + OPTIONS[task]))


def ours(model: Any, tasks: list[str], count: int) -> Callable[[int], None]:
    import torch

    from lang1.models.fast import takes_ragged, use_fast_attention
    from lang1.tasks.prompts import Question
    from lang1.training.asked import AskedTask, Pack, Rows
    from lang1.training.packs import answer_loss, make_batches

    use_fast_attention(model, torch.float32)
    asked = [
        AskedTask(
            task,
            Question(task, ("",) * OPTIONS[task]),
            np.array(rows_of([task], 0, 1)[0].ids[-QUESTION_TOKENS[task] :]),
            options_of(task),
            [0.0] * OPTIONS[task],
        )
        for task in tasks
    ]

    def backward(step: int) -> None:
        by_note: dict[int, list[Row]] = {}
        for row in rows_of(tasks, step, count):
            by_note.setdefault(row.note, []).append(row)
        packs = [
            Pack(note, tuple((tasks.index(row.task), row.label) for row in rows), tuple(row.task for row in rows))
            for note, rows in by_note.items()
        ]
        rows = Rows(asked, [], packs, None, 512, 1024, [], {}, is_ragged=takes_ragged(model))
        rows._notes.update({note: np.array(found[0].note_ids) for note, found in by_note.items()})
        for batch in make_batches(rows, packs, 4096):
            (answer_loss(model, batch, asked, [1.0] * len(tasks)) / count).backward()

    return backward


def micro_batches(tasks: list[str], step: int, count: int, width: int | None) -> Iterator[tuple[list[Row], Any, Any]]:
    """Rows, padded tokens and mask of 8 rows; of similar length where no width is given."""
    import torch

    rows = rows_of(tasks, step, count)
    if width is None:
        rows = sorted(rows, key=lambda row: -len(row.ids))
    for start in range(0, len(rows), MICRO):
        part = rows[start : start + MICRO]
        wide = width or max(len(row.ids) for row in part)
        tokens, mask = torch.zeros(len(part), wide, dtype=torch.long), torch.zeros(len(part), wide, dtype=torch.long)
        for i, row in enumerate(part):
            tokens[i, : len(row.ids)], mask[i, : len(row.ids)] = torch.tensor(row.ids), 1
        yield part, tokens, mask


def padded(model: Any, tasks: list[str], count: int) -> Callable[[int], None]:
    import torch

    def backward(step: int) -> None:
        for part, tokens, mask in micro_batches(tasks, step, count, 560):
            width = tokens.shape[1]
            tokens, mask = (torch.nn.functional.pad(t, (0, 1)) for t in (tokens, mask))
            labels = torch.full_like(tokens, -100)
            for i, row in enumerate(part):  # the answer stands behind the prompt
                tokens[i, len(row.ids)] = labels[i, len(row.ids)] = LETTER + row.label
                mask[i, len(row.ids)] = 1
            assert tokens.shape[1] == width + 1
            loss = model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False).loss
            (loss * len(part) / count).backward()

    return backward


def careful(model: Any, tasks: list[str], count: int) -> Callable[[int], None]:
    import torch

    def backward(step: int) -> None:
        for part, tokens, mask in micro_batches(tasks, step, count, None):
            logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
            losses = [
                torch.nn.functional.cross_entropy(
                    logits[i, len(row.ids) - 1, options_of(row.task)].float(), torch.tensor(row.label)
                )
                for i, row in enumerate(part)
            ]
            (torch.stack(losses).sum() / count).backward()

    return backward


def child(side: str, tasks: list[str], path: Path, threads: int, count: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    shape = SHAPES["15M"]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape.hidden,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=1024,
            tie_word_embeddings=shape.tied,
            rms_norm_eps=1e-5,
        )
    ).train()
    for name, parameter in model.named_parameters():
        fill(name, parameter)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-5, weight_decay=0.02, fused=True
    )
    backward = {"ours": ours, "padded": padded, "careful": careful}[side](model, tasks, count)
    seconds, used = [], []
    for step in range(STEPS + 1):
        started, before = time.monotonic(), time.process_time()
        backward(step)
        if step == 0 and side != "padded":
            np.savez(path, **{n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.monotonic() - started)
        used.append(time.process_time() - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"seconds": statistics.median(seconds[1:]), "cpu_seconds": statistics.median(used[1:]), "peak_mib": peak}
    print(json.dumps(found))


def run(side: str, case: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    numbers = [str(options.threads), str(options.rows)]
    command = [sys.executable, __file__, "--child", side, case, str(folder / f"{side}.npz"), *numbers]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{case}, {side}: ended with exit code {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{case}: {side}: {options.rows / found['seconds']:.2f} rows/s, {found['peak_mib']:,.0f} MiB", flush=True)
    return found


def compare(case: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(options.samples):
            for side in SIDES:
                found[side].append(run(side, case, folder, options))
        with np.load(folder / "ours.npz") as mine, np.load(folder / "careful.npz") as theirs:
            assert set(mine) == set(theirs)
            worst = max(float(np.abs(mine[key] - theirs[key]).max()) for key in mine)
    assert worst < 1e-5, f"{case}: gradients differ by {worst}"

    def middle(side: str, key: str) -> float:
        return statistics.median(sample[key] for sample in found[side])

    peers = {
        "padded": "padded to 560 tokens, logits of all positions (Hugging Face Trainer's way)",
        "careful": "answer-only loss, dynamic padding, logits of all positions",
    }
    return [
        {
            "name": f"a finetuning step of {options.rows} rows, 15M, vocabulary {VOCABULARY:,}: {case}",
            "peer": peer,
            "ratio": round(middle(side, "seconds") / middle("ours", "seconds"), 2),
            "memory_ratio": round(middle("ours", "peak_mib") / middle(side, "peak_mib"), 2),
            "samples": options.samples,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "cpu_ratio": round(middle(side, "cpu_seconds") / middle("ours", "cpu_seconds"), 2),
            "rows_a_second": round(options.rows / middle("ours", "seconds"), 2),
            "largest_gradient_difference": worst,
        }
        for side, peer in peers.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=3, help="fresh processes a side")
    parser.add_argument("--rows", type=int, default=40, help="a step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    for result in [result for case in options.cases for result in compare(case, options)]:
        print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], CASES[sys.argv[3]], Path(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
    else:
        main()
