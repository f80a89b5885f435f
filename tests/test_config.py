"""What a recipe may say, and what a user reads when it says something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from lang1.config import ExtractConfig, RunConfig, dump, dump_yaml, load_config
from lang1.errors import EXIT_BAD_INPUT, ConfigError

ROOT = Path(__file__).parents[1]
Read = Callable[..., RunConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_recipe(text: str = "simulate: {}", *overrides: str, section: str | None = None) -> RunConfig:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(text)
        return load_config(recipe, list(overrides), section)

    return read_recipe


def fault(read: Read, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, *overrides)
    assert "\n" not in str(caught.value)
    return re.sub(r"^\S*recipe\.yaml: ", "", str(caught.value))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pretrain: {stpes: 3}", "pretrain.stpes: unknown key; did you mean pretrain.steps?"),
        ("pretran: {steps: 3}", "pretran: unknown key; did you mean pretrain?"),
        (
            "finetune: {optimizer: {lrr: 1}}",
            "finetune.optimizer.lrr: unknown key; did you mean finetune.optimizer.lr?",
        ),
        ("pretrain: {val_evry: 9}", "pretrain.val_evry: unknown key; did you mean pretrain.val_every?"),
        ("simulate: {encuonters: 9}", "simulate.encuonters: unknown key; did you mean simulate.encounters?"),
        ("report: {zzz: 1}", "report.zzz: unknown key; known here: title, example_prompts"),
    ],
)
def test_unknown_key_is_answered_with_the_nearest(read: Read, text: str, told: str) -> None:
    with_source = text if text.startswith("simulate") else "simulate: {}\n" + text
    assert fault(read, with_source) == told


OTHERS = """
simulate: {}
pretrain: {mix: {clinical: 0.9, web: 0.1}, steps: 7}
finetune: {batch_size: 40, optimizer: {lr: 6.0e-4}}
others:
  with LoRA: {finetune: {method: lora, optimizer: {eps: 1.0e-8}}}
  web only: {pretrain: {mix: {web: 1.0}}, finetune: {}}
  five shots: {shots: 5}
"""


def test_another_model_has_the_runs_settings_but_for_those_it_names(read: Read) -> None:
    config = read(OTHERS)
    lora, web = config.others["with LoRA"].finetune, config.others["web only"]
    assert lora is not None and (lora.method, lora.batch_size) == ("lora", 40)
    assert (lora.optimizer.lr, lora.optimizer.eps, lora.optimizer.beta2) == (6e-4, 1e-8, 0.999)
    assert web.pretrain is not None and (web.pretrain.mix, web.pretrain.steps) == ({"web": 1.0}, 7)
    assert web.finetune == config.finetune and config.others["five shots"].finetune is None
    assert read(dump_yaml(config)) == config


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "others.web only.pretrain.stps=3",
            "others.web only.pretrain.stps: unknown key; did you mean others.web only.pretrain.steps?",
        ),
        ("others.web only.pretrain.steps=0", "others.web only.pretrain.steps: must be at least 1"),
        (
            "others.more={}",
            "others.more.model: must be given, or pretrain, finetune or shots: "
            "otherwise this is the run's own model again",
        ),
        (
            "others.five shots.single_task=true",
            "others.five shots.single_task: must be of use to a finetune section only",
        ),
        (
            "others.web only.finetune.tasks=[mort]",
            "others.web only.finetune.tasks: mort: no such task; did you mean mortality?",
        ),
        ("others=[1]", "others: should be a valid dictionary (found list)"),
    ],
)
def test_a_fault_of_another_model_is_told_with_its_name(read: Read, override: str, told: str) -> None:
    assert fault(read, OTHERS, override) == told


def test_every_fault_is_told_at_once(read: Read) -> None:
    recipe = """
simulate: {encounters: 0}
pretrain: {stpes: 3, preset: huge}
finetune: {batch_size: 0, patience_steps: 0}
tasks: {windows: {train: {start: 2021-01-01, end: 2020-01-01}}}
"""
    assert fault(read, recipe, "evaluate.batch_tokens=many", "nothing").split("; ") == [
        "nothing: an override is written key=value, such as pretrain.steps=100",
        "simulate.encounters: must be at least 1",
        "pretrain.preset: should be 'tiny', '100m', '1b', '7b', 'encoder-tiny' or 'nyutron-109m' (found str)",
        "pretrain.stpes: unknown key",
        "did you mean pretrain.steps?",
        "tasks.windows.train.end: must be after start (2021-01-01)",
        "finetune.batch_size: must be at least 1",
        "finetune.patience_steps: must be at least 1",
        "evaluate.batch_tokens: should be a valid integer, unable to parse string as an integer (found str)",
    ]


def test_configuration_fault_is_bad_input() -> None:
    assert ConfigError.exit_code == EXIT_BAD_INPUT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "a recipe is a mapping of sections, found list"),
        ("simulate: {", "line 1: not a valid recipe (expected the node content, but found '<stream end>')"),
        ("simulate: {}\nseed: 1\nseed: 2", "line 3: not a valid recipe (key seed: given twice)"),
        ("simulate: {}\nyes: 2", "line 2: not a valid recipe (key True: not a word)"),
        (
            "seed: 1",
            "extract.path: must be given when there is no simulate section: where are the records to come from?",
        ),
        ("simulate: {}\nfile_mode: 0640", "file_mode: should be a valid string (found int); write it in quotes"),
        ("simulate: {}\nname: a/b", "name: must be a plain folder name"),
        (
            "simulate: {}\ntokenize: {web: {clinical: x}}",
            "tokenize.web: must be named in letters, digits and _, and not clinical or tokenizer",
        ),
        ("simulate: {}\npretrain: 7", "pretrain: should be a dictionary or an instance of PretrainConfig (found int)"),
    ],
)
def test_recipe_that_cannot_be_used_is_told_with_its_place(read: Read, text: str, told: str) -> None:
    assert fault(read, text) == told


def test_missing_and_unreadable_recipes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such recipe; recipes/ holds the ones that come with lang1"):
        load_config(tmp_path / "none.yaml", [])
    with pytest.raises(ConfigError, match="cannot be read as a text file"):
        load_config(tmp_path, [])
    (tmp_path / "weights.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as a text file"):
        load_config(tmp_path / "weights.yaml", [])


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("pretrain.optimizer.lr=3e-4", 3e-4),
        ("pretrain.steps=1e3", 1000),
        ("pretrain.mix={clinical: 1.0}", {"clinical": 1.0}),
        ("pretrain.context_length=null", None),
        ("tokenize.end=2023-07-01", date(2023, 7, 1)),
        ("evaluate.splits=[test, temporal_2]", ("test", "temporal_2")),
        ("extract.path=/data/a=b.duckdb", "/data/a=b.duckdb"),
        ("random_twin=false", False),
        ("report.title=A title: with a colon", "A title: with a colon"),
        ("name='007'", "007"),
    ],
)
def test_override_takes_the_place_of_a_default(read: Read, override: str, value: Any) -> None:
    found: Any = read("simulate: {}", override)
    for key in override.partition("=")[0].split("."):
        found = getattr(found, key)
    assert found == value
    assert type(found) is type(value)


def test_override_wins_over_the_recipe_and_the_last_one_over_others(read: Read) -> None:
    config = read("simulate: {}\npretrain: {steps: 5, micro_batch: 4}", "pretrain.steps=6", "pretrain.steps=7")
    assert (config.pretrain.steps, config.pretrain.micro_batch) == (7, 4)


def test_single_stage_reads_short_overrides_and_needs_no_source() -> None:
    config = load_config(None, ["optimizer.lr=3e-4", "steps=9", "seed=4"], "pretrain")
    assert (config.pretrain.optimizer.lr, config.pretrain.steps, config.seed) == (3e-4, 9, 4)


def test_section_that_names_one_key_keeps_its_own_defaults(read: Read) -> None:
    config = read("simulate: {}\nfinetune: {optimizer: {lr: 1e-3}}\ntasks: {denial_windows: {}}")
    assert (config.finetune.optimizer.lr, config.finetune.optimizer.beta2) == (1e-3, 0.999)
    assert config.pretrain.optimizer.beta2 == 0.95
    assert config.tasks.denial_windows.train.start == date(2021, 5, 1)


def test_section_whose_keys_are_all_commented_out_has_its_defaults(read: Read) -> None:
    assert (
        read("simulate: {}\npretrain:\n  # steps: 3\n").pretrain == RunConfig(extract=ExtractConfig(path="x")).pretrain
    )


def test_what_is_printed_reads_back_as_the_same_configuration(read: Read) -> None:
    config = read(
        "simulate: {encounters: 77}", "tokenize.end=2022-02-02", "pretrain.mix={clinical: 1}", "file_mode='0600'"
    )
    assert read(dump_yaml(config)) == config
    assert yaml.safe_load(dump_yaml(config)) == dump(config)


def test_configuration_cannot_be_changed_afterwards(read: Read) -> None:
    with pytest.raises(FrozenInstanceError):
        read().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_that_comes_with_lang1_is_valid_and_named_for_its_file(recipe: Path) -> None:
    assert load_config(recipe, []).name == recipe.stem


def test_the_command_that_the_mimic_recipe_writes_for_its_other_ratio_loads() -> None:
    recipe = ROOT / "recipes" / "mimic3.yaml"
    text = recipe.read_text().replace("\\\n  #", "")  # a command over several lines
    [line] = [line for line in text.splitlines() if "tasks.split_ratio=[70,15,15]" in line]
    overrides = line.split("lang1 run recipes/mimic3.yaml ")[1].split()
    other = load_config(recipe, overrides)
    assert other.tasks.split_ratio == other.tokenize.fold_ratio == (70, 15, 15)
    assert other.tasks.tasks == other.finetune.tasks == other.evaluate.tasks == ("readmission",)
    with pytest.raises(ConfigError, match=r"tokenize\.fold_ratio"):
        load_config(recipe, [one for one in overrides if not one.startswith("tokenize.")])


def test_stays_that_are_open_to_the_corpus_are_open_to_the_tasks() -> None:
    recipe = ROOT / "recipes" / "demo.yaml"
    with pytest.raises(ConfigError, match=r"tokenize\.transfer_hours.*tasks\.transfer_hours or more"):
        load_config(recipe, ["tasks.transfer_hours=36"])
    assert load_config(recipe, ["tasks.transfer_hours=36", "tokenize.transfer_hours=36"]).tokenize.transfer_hours == 36
    assert load_config(recipe, ["tasks.transfer_hours=0"])  # what is open to no task may be left out
    assert load_config(recipe, ["tasks.transfer_hours=36", "tokenize.leave_out_open_stays=false"])


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("single-task", {"finetune"}),
        ("web-only", {"pretrain"}),
        ("remede-recommended", {"tasks"}),
        ("remede-paper", {"tasks"}),
    ],
)
def test_recipes_of_comparisons_differ_from_the_demo_in_one_section(name: str, differs: set[str]) -> None:
    demo, other = (vars(load_config(ROOT / "recipes" / f"{n}.yaml", [])) for n in ("demo", name))
    assert {key for key in demo if demo[key] != other[key]} == differs | {"name", "report"}


def test_the_papers_corpus_versions_differ_from_the_demo_in_the_selection_and_the_mix() -> None:
    demo, old, new = (load_config(ROOT / "recipes" / f"{n}.yaml", []) for n in ("demo", "nyu-notes", "nyu-notes-plus"))
    assert {k for k in vars(demo) if vars(demo)[k] != vars(old)[k]} == {"name", "tokenize", "pretrain", "report"}
    assert {k for k in vars(old) if vars(old)[k] != vars(new)[k]} == {"name", "tokenize"}
    assert (old.tokenize.version, new.tokenize.version) == ("NYUNotes", "NYUNotes+")
    assert (old.tokenize.start, old.tokenize.end) == (date(2011, 1, 1), date(2020, 6, 1))
    assert (new.tokenize.start, new.tokenize.end) == (date(2003, 1, 1), demo.tasks.windows.temporal_2.start)
    assert old.tokenize.encounter_classes == ("inpatient",)
    assert old.pretrain.mix == new.pretrain.mix == {"clinical": 1.0}


def test_gradient_accumulation_follows_from_the_batches(read: Read) -> None:
    config = read("simulate: {}\npretrain: {global_batch: 96, micro_batch: 8}")
    assert config.pretrain.accumulation(1) == 12
    told = fault(read, "simulate: {}\npretrain: {global_batch: 96, micro_batch: 7}")
    assert told == "pretrain.micro_batch: must be a divisor of global_batch (96)"


def test_windows_must_follow_each_other(read: Read) -> None:
    told = fault(read, "simulate: {}\ntasks: {windows: {temporal_1: {start: 2020-01-01, end: 2020-06-01}}}")
    assert told == "tasks.windows.temporal_1.start: must be at or after train.end"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("spikes.least=500", "spikes.least: must be between 4 and window (128)"),
        ("spikes.action=panic", "spikes.action: "),
        ("generations.prompts=mine.json", "generations.prompts: must be null unless allow_phi is true (--allow-phi)"),
        ("evaluations.every=100", "evaluations.tasks: must be a folder of lang1 tasks"),
        ("sinks.alerts_env=https://hooks.slack.com/s3cret", "sinks.alerts_env: must be the name of an environment"),
        ("sinks.tensorbord=true", "sinks.tensorbord: unknown key; did you mean pretrain.monitor.sinks.tensorboard?"),
    ],
)
def test_a_monitor_that_cannot_work_is_refused_with_its_key(read: Read, override: str, told: str) -> None:
    assert f"pretrain.monitor.{told}" in fault(read, "simulate: {}", f"pretrain.monitor.{override}")


def test_by_default_the_monitor_watches_for_spikes_alone(read: Read) -> None:
    monitor = read().pretrain.monitor
    assert monitor.spikes.action == "alert"
    assert (monitor.generations.every, monitor.evaluations.every) == (0, 0)
    assert (monitor.sinks.tensorboard, monitor.sinks.wandb, monitor.sinks.alerts_env) == (False, None, None)
