"""Multiple-choice finetuning on one task or several (5.4): `lang1 finetune`, of a causal LM or an encoder.

All parameters, or low-rank adapters (lora.py); cross-entropy of the true option among the options at the answer
position. Prompts, answer position and option tokens come from scoring/options.py, as in evaluation. Rows of train and
val alone are opened (asked.py). The folder is the Hugging Face model of the best validation (validation.py), with
curve.jsonl, lang1.json, questions.json and seen.parquet. Under torchrun all processes share out every step's rows.

An encoder differs in how it starts, in its tokens and in where its logits are read (encoder_finetuning.py); the rest is
one.
"""

from __future__ import annotations

import gc
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lang1 import config as configuration
from lang1 import runs
from lang1.config import FinetuneConfig, TaskId
from lang1.corpus.hashes import hash_id
from lang1.errors import ConfigError, InputError, require_package
from lang1.models.encoder import positions_of
from lang1.models.export import WEIGHTS, check_tokenizer_copies, export_model, load_weights
from lang1.models.fast import takes_ragged, use_fast_attention
from lang1.models.load import is_encoder
from lang1.scoring.options import WIDTHS
from lang1.tasks import prompts
from lang1.tasks.prompts import require_known
from lang1.training.asked import READ, Group, Rows, balance_factors, make_groups, read_questions, read_rows
from lang1.training.base_model import BaseModel
from lang1.training.checkpoint import Checkpoints, Retention
from lang1.training.distributed import World, joined, run_stage, shard
from lang1.training.encoder_finetuning import EncoderBase, encode_alone, head_logits
from lang1.training.encoder_finetuning import check as check_encoder
from lang1.training.feeding import Fetched
from lang1.training.loop import LoopConfig, Objective, Progress, resume, train
from lang1.training.lora import ADAPTER, add_adapters, merged, write_adapter
from lang1.training.numerics import prepare_torch
from lang1.training.optimizer import make_optimizer
from lang1.training.packs import LogitsOf, PackBatch, answer_loss, make_batches, option_logits
from lang1.training.spreading import build_on_main, spread, weights_of
from lang1.training.validation import keep_weights, validate

HOW = {"sharding", "activation_checkpointing", "threads"}
"""settings that change how a run is computed, not what it computes: they may change when it goes on"""


@dataclass(frozen=True)
class Data:
    """Training and validation rows of the tasks that have any."""

    train: Rows
    val: Rows
    groups: list[Group]
    weights: list[float]
    """loss weight of a row of each task, which makes the mix even"""


@dataclass(frozen=True)
class Setup:
    """Everything that training needs, on the devices where it will run."""

    cfg: FinetuneConfig
    base: BaseModel
    net: Any
    """the causal LM; with LoRA the adapters stand in it"""
    wrapped: Any
    """PEFT's model around it; None without LoRA"""
    data: Data
    names: list[str]
    skipped: dict[str, str]
    dtype: torch.dtype
    world: World
    seed: int
    logits_of: LogitsOf = option_logits

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole schedule."""
        return self.cfg.max_steps_per_task * len(self.names)

    @property
    def facts(self) -> dict[str, Any]:
        """What the model card says, whatever comes of the training."""
        cfg = self.cfg
        facts: dict[str, Any] = {"kind": "finetuned", "init": cfg.init, "tasks": self.names, "balance": cfg.balance}
        facts |= {"seed": self.seed, "pretraining": self.base.pretraining.as_facts(), "method": cfg.method}
        facts |= {"batch_size": cfg.batch_size, "learning_rate": cfg.optimizer.lr}
        facts |= {"examples": {task: sum(counts) for task, counts in self.data.train.classes.items()}}
        return facts | self.base.facts | ({"lora": configuration.dump(cfg.lora)} if cfg.method == "lora" else {})


def finetune(
    cfg: FinetuneConfig, *, tasks: Path, model: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Finetune `model`, a Hugging Face folder or a checkpoint of pretraining, on the task sets `tasks`; the manifest.

    `model` is a causal LM's or an encoder's.
    With `init: random` only configuration and tokenizer come from `model`. A task without rows is skipped and named.
    Under torchrun every rank calls it, and ranks other than 0 get an empty manifest.
    """
    runs.read_manifest(tasks)
    with joined() as world:
        check(cfg, model, world)

        def work(stage: runs.Stage) -> None:
            setup = prepare(cfg, tasks, model, seed, world)
            best = stage.scratch() / "best"
            progress = run(setup, stage.out, stage.scratch(), best)
            if progress.best_step is None:
                keep_weights(best / "last" / WEIGHTS, setup.net, world)
            if world.is_main:
                _finish(stage, setup, progress, best / (f"step-{progress.best_step}" if progress.best_step else "last"))

        inputs: dict[str, Path | str] = {"tasks": tasks, "model": model}
        return run_stage(world, out, "finetune", what(cfg), seed, inputs, work, force, only={"tasks": READ})


def what(cfg: FinetuneConfig) -> dict[str, Any]:
    """The settings that make a run another run."""
    return {key: value for key, value in configuration.dump(cfg).items() if key not in HOW}


def prepare(cfg: FinetuneConfig, tasks: Path, model: Path, seed: int, world: World) -> Setup:
    """Model and rows of a finetuning. Raises InputError and ConfigError where they do not fit together."""
    dtype = prepare_torch(cfg.threads, cfg.precision)
    names, skipped = usable_tasks(tasks, cfg.tasks)
    base = base_of(cfg, model, tasks, names)
    net, wrapped = build_on_main(lambda is_empty: build(cfg, base, seed, is_empty), world)
    use_fast_attention(net, dtype, world.device)
    data = read_data(cfg, tasks, names, base, net, seed, is_ragged=world.size == 1 and takes_ragged(net))
    if cfg.activation_checkpointing:
        net.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    weights = weights_of(net, world)
    shard(net, world, cfg.sharding, dtype, None)
    spread(net, weights, world)
    logits_of = head_logits if isinstance(base, EncoderBase) else option_logits
    return Setup(cfg, base, net, wrapped, data, names, skipped, dtype, world, seed, logits_of)


def check(cfg: FinetuneConfig, model: Path, world: World) -> None:
    """What can be said before anything is hashed, read or trained. Raises InputError and ConfigError."""
    if cfg.method == "lora":
        require_package("peft", "finetune.method: lora", "tune")
    if is_encoder(model):
        check_encoder(cfg, world)


def base_of(cfg: FinetuneConfig, model: Path, tasks: Path, names: list[str]) -> BaseModel:
    """The start of the finetuning, of the kind that `model` holds."""
    is_random = cfg.init == "random"
    if not is_encoder(model):
        return BaseModel(model, is_random)
    questions = prompts.read_questions(tasks)
    return EncoderBase(model, is_random, {name: questions[name] for name in names})


def build(cfg: FinetuneConfig, base: BaseModel, seed: int, is_empty: bool = False) -> tuple[Any, Any]:
    """The model that is trained, whole and on the CPU, and PEFT's model around it where there are adapters.

    `is_empty`: without weights, to be filled by another process (spreading.py).
    """
    net = base.load(seed, is_empty)
    if not is_empty:
        check_tokenizer_copies(base.tokenizer_folder)
    if cfg.method == "full":
        return net, None
    wrapped = add_adapters(net, cfg.lora, seed)
    return wrapped.get_base_model(), wrapped


def run(setup: Setup, out: Path, scratch: Path, best: Path, steps: int | None = None) -> Progress:
    """Train from the newest checkpoint in `scratch` to the end, an early stop, or the first `steps` of the schedule."""
    cfg, world, data, dtype = setup.cfg, setup.world, setup.data, setup.dtype
    objective = Objective(
        fetch=lambda step: fetch(cfg, data, setup.seed, step, world),
        loss=lambda net, batch: batch_loss(setup, net, batch),
        validate=lambda net, progress: validate(cfg, net, data.val, progress, best, dtype, world, setup.logits_of),
        facts=setup.facts,
    )
    loop = LoopConfig(
        steps or setup.steps,
        cfg.optimizer,
        cfg.val_every,
        cfg.val_every,
        dtype,
        sharded_weights=cfg.sharding == "full" and world.size > 1,
        schedule_steps=setup.steps,
    )
    checkpoints = Checkpoints(scratch / "checkpoints", scratch, world, Retention(1))
    optimizer = make_optimizer(setup.net, cfg.optimizer)
    progress = resume(setup.net, optimizer, out, checkpoints, world)
    return train(loop, setup.net, optimizer, objective, progress, out=out, checkpoints=checkpoints, world=world)


def usable_tasks(folder: Path, wanted: tuple[TaskId, ...]) -> tuple[list[str], dict[str, str]]:
    """The tasks with training and validation rows, and why the others are skipped.

    Raises InputError when there is none, and for a task of which one split is there and the other is not.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_known(wanted, prompts.read_questions(folder), folder, "finetune.tasks")
    names: list[str] = []
    skipped: dict[str, str] = {}
    for task in wanted:
        files = {split: folder / task / f"{split}.parquet" for split in ("train", "val")}
        missing = [path for path in files.values() if not path.is_file()]
        if len(missing) == 1:
            raise InputError(f"{missing[0]}: missing, though the task's other split is there; run lang1 tasks again")
        try:
            empty = [s for s, path in files.items() if path in missing or pq.read_metadata(path).num_rows == 0]
        except (pa.ArrowException, OSError):
            raise InputError(
                f"{folder / task}: its splits are not readable as Parquet; run lang1 tasks again"
            ) from None
        if empty:
            skipped[task] = f"no rows in {', '.join(empty)}"
            runs.say(f"finetune: {task} is skipped: {skipped[task]}")
        else:
            names.append(task)
    if not names:
        raise InputError(
            f"{folder}: no task of finetune.tasks has training and validation rows "
            f"({'; '.join(f'{task}: {why}' for task, why in skipped.items())})"
        )
    return names, skipped


def read_data(
    cfg: FinetuneConfig, folder: Path, names: list[str], base: BaseModel, net: Any, seed: int, *, is_ragged: bool
) -> Data:
    """Rows, draws and balance factors; `is_ragged`: batches are read without padding.

    Raises ConfigError when a batch cannot hold a row of each task.
    """
    if cfg.batch_size < len(names):
        raise ConfigError(f"finetune.batch_size: {cfg.batch_size} is less than a row of each of {len(names)} tasks")
    tokenizer, context = base.tokenizer(), getattr(net.config, "max_position_embeddings", None)
    how: dict[str, Any]
    if isinstance(base, EncoderBase):
        context = positions_of(net.config)
        cfg = replace(cfg, max_note_tokens=min(cfg.max_note_tokens, max(1, context - 2)))
        special = base.special_ids()
        encode = encode_alone(tokenizer, special, cfg.max_note_tokens, context)
        asked, how = base.asked(), {"encode": encode, "pad": special.pad}
    else:
        # only a Llama's tasks share notes: a mask of ours would replace that of another class, such as a sliding
        # window's; and only it is padded further: others may have no position to spare
        is_llama = type(net).__name__ == "LlamaForCausalLM"
        asked = read_questions(folder, names, tokenizer)
        padded = is_llama and not is_ragged
        how = {"share_notes": cfg.share_notes and is_llama, "width_multiple": WIDTHS if padded else 1}
    rows = read_rows(folder, "train", asked, tokenizer, cfg, context, seed=seed, **how)
    factors = balance_factors(rows, cfg.balance)
    rows = replace(rows, tasks=[replace(task, log_factors=f) for task, f in zip(asked, factors, strict=True)])
    groups, weights = make_groups(rows, cfg.batch_size)
    val = read_rows(folder, "val", asked, tokenizer, cfg, context, seed=seed, **how)
    return Data(replace(rows, is_ragged=is_ragged), replace(val, is_ragged=is_ragged), groups, weights)


def fetch(cfg: FinetuneConfig, data: Data, seed: int, step: int, world: World) -> Fetched[PackBatch]:
    """This rank's micro-batches of a step; a function of seed, step and rank alone."""
    packs = [pack for group in data.groups for pack in group.drawn(seed, step)]
    batches = [
        replace(batch, key=zlib.crc32(f"{seed}:{step}:{world.rank}:{number}".encode()))
        for number, batch in enumerate(make_batches(data.train, packs, cfg.batch_tokens, world.rank, world.size))
    ]
    rows = Counter(task for pack in packs for task, _ in pack.asked)
    divisor = sum(data.weights[task] * count for task, count in rows.items())
    counts = {data.train.tasks[task].task: count for task, count in sorted(rows.items())}
    notes = data.train.notes(packs)
    tokens = sum(map(len, notes)) + sum(len(data.train.tasks[task].ids) * count for task, count in rows.items())
    return Fetched(batches, divisor, tokens, counts)


def batch_loss(setup: Setup, net: Any, batch: PackBatch) -> torch.Tensor:
    """The summed weighted loss of a micro-batch, on the world's device."""
    if setup.cfg.method == "lora" and setup.cfg.lora.dropout:
        torch.manual_seed(batch.key)  # so that a resumed run draws what an undisturbed one does
    data = setup.data
    return answer_loss(net, batch.to(setup.world.device), data.train.tasks, data.weights, setup.logits_of)


def _finish(stage: runs.Stage, setup: Setup, progress: Progress, best: Path) -> None:
    cfg, data = setup.cfg, setup.data
    facts = setup.facts | {
        "steps": progress.step,
        "best_step": progress.best_step,
        "best_value": progress.best_value,
        "rows_seen": progress.counts,
        "skipped": setup.skipped,
        "row_weights": {t.task: round(w, 6) for t, w in zip(data.train.tasks, data.weights, strict=True)},
        "max_note_tokens": data.train.max_note_tokens,
    }
    _export(stage, setup, facts, best)
    asked = prompts.describe_questions({task.task: task.question for task in data.train.tasks})
    runs.write_json(stage.out / prompts.QUESTIONS, asked)
    write_seen(stage.out / "seen.parquet", data.train.hashes, setup.base.seen)
    speeds = [row["tokens_per_second"] for row in runs.read_lines(stage.out / "speed.jsonl")]
    stage.count(steps=progress.step, tokens=progress.tokens, **progress.counts)
    stage.record(
        skipped=setup.skipped,
        best_step=progress.best_step,
        best_value=progress.best_value,
        stopped_early=progress.finished,
        batch_size=cfg.batch_size,
        rows_by_class=data.train.classes,
        val_rows_by_class=data.val.classes,
        tokens_per_second=round(float(np.median(speeds)), 1),
        threads=torch.get_num_threads(),
        processes=setup.world.size,
        precision="bf16" if setup.dtype == torch.bfloat16 else "fp32",
        epochs=round(progress.step * sum(g.per_step for g in data.groups) / len(data.train.packs), 4),
    )


def _export(stage: runs.Stage, setup: Setup, facts: dict[str, Any], best: Path) -> None:
    """The best weights as a Hugging Face folder; adapters are written beside it, and merged into it."""
    from safetensors.torch import load_file

    net, wrapped = setup.net, setup.wrapped
    if setup.world.size > 1:  # what is here is one process's part
        net, wrapped = build(setup.cfg, setup.base, setup.seed)
    net.to("cpu")
    gc.collect()
    load_weights(net, load_file(best / WEIGHTS))
    if wrapped is not None:
        write_adapter(wrapped, stage.out / ADAPTER, stage.scratch())
        net = merged(wrapped)
    export_model(net, setup.base.tokenizer_folder, stage.out, facts)


def write_seen(path: Path, hashes: list[tuple[str, str]], earlier: Path | None) -> None:
    """The training rows, and those of the finetuning that the model began from."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {(note, hash_id(patient)) for note, patient in hashes}
    if earlier is not None:
        before = pq.read_table(earlier, columns=["note_hash", "patient_hash"])
        known |= set(zip(before["note_hash"].to_pylist(), before["patient_hash"].to_pylist(), strict=True))
    rows = sorted(known)
    schema = pa.schema(
        [pa.field("note_hash", pa.string(), nullable=False), pa.field("patient_hash", pa.string(), nullable=False)]
    )
    runs.write_table(path, pa.Table.from_pylist([{"note_hash": n, "patient_hash": p} for n, p in rows], schema))
