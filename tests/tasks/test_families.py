"""The two families of recipes: all options written out, each difference beside the paper, what it does to a stay."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from timelines import EVERYTHING, Hospital, at, build

from lang1.config import AuditConfig, TasksConfig, load_config
from lang1.errors import InputError

ROOT = Path(__file__).parents[2]
RECOMMENDED, PAPER = (ROOT / "recipes" / f"remede-{name}.yaml" for name in ("recommended", "paper"))


def differing() -> dict[str, object]:
    """What the paper's family sets otherwise."""
    found = {}
    for field in fields(TasksConfig):
        default, paper = (getattr(config.tasks, field.name) for config in (TASKS_DEFAULT, TASKS_PAPER))
        if default != paper:
            found[field.name] = paper
    return found


TASKS_DEFAULT, TASKS_PAPER = (load_config(recipe, []) for recipe in (RECOMMENDED, PAPER))


def test_recommended_is_the_default_written_out() -> None:
    assert TASKS_DEFAULT.tasks == TasksConfig()
    written = yaml.safe_load(RECOMMENDED.read_text())["tasks"]
    elsewhere = {"tasks", "own", "audit", "sequence_fraction", "cci_weights", "cci_age_points"}
    assert {field.name for field in fields(TasksConfig)} - elsewhere == set(written) - elsewhere


def test_paper_differs_as_the_recipe_and_the_page_say() -> None:
    assert set(differing()) == {
        "split_unit", "windows", "denial_other_half", "transfer_hours", "exclude_post_death", "exclude_death_in_stay",
        "exclude_unfollowed", "notes_within_stay", "later_edits", "max_note_delay_hours", "max_summary_delay_hours",
        "exclude_no_disposition", "denial_rule", "claims_follow_up_days", "prompt_set",
        "audit",
    }  # fmt: skip
    comments = [line for line in PAPER.read_text().splitlines() if line.startswith("  #")]
    assert sum('"' in line for line in comments) >= 8  # the paper's sentences
    page = (ROOT / "docs" / "task-families.md").read_text()
    for words in ("denial_other_half: train", "split_unit: note", "denial_rule: otherwise", "31 December 2021"):
        assert words in page


def one_of_each() -> Hospital:
    """Stays that the two families read otherwise."""
    hospital = Hospital()
    hospital.stay("dies", "2020-01-01", "2020-01-03", "dies", "Expired")
    hospital.stay("moved", "2020-01-01 08:00", "2020-01-03 08:00", "moved")
    hospital.stay("moved again", "2020-01-03 12:00", "2020-01-05 08:00", "moved")
    hospital.stay("nobody wrote where", "2020-01-01", "2020-01-03", "where", disposition=None)
    hospital.stay("late note", "2020-01-01", "2020-01-03", "late", notes=False)
    hospital.note("late note", "H&P", "2020-01-04", "late")
    hospital.stay("waits", "2020-01-01", "2020-01-03", "waits")
    hospital.claim("waits", "pending")
    hospital.stay("last", "2021-01-01", "2021-01-02", "last")
    hospital.claim("last", "no denial")
    return hospital


def late_and_amended() -> Hospital:
    """A summary that was signed in the patient's next stay, and an edit that is the last version of its own."""
    hospital = Hospital()
    hospital.stay("first", "2020-01-01", "2020-01-03", "back", notes=False)
    hospital.note("first", "discharge summary", "2020-01-12", "back")
    hospital.stay("second", "2020-01-10", "2020-01-14", "back")
    hospital.stay("amended", "2020-01-01", "2020-01-03", "amended")
    hospital.note(
        "amended", "discharge summary", "2020-01-04", "amended", note_id="later", written_time=at("2020-01-03")
    )
    return hospital


def test_what_the_paper_admits_is_accepted_with_its_reason_and_fails_without(tmp_path: Path) -> None:
    cfg = replace(TASKS_PAPER.tasks, tasks=("readmission",), windows=EVERYTHING, denial_windows=EVERYTHING)
    built = build(late_and_amended(), tmp_path / "paper", cfg)
    assert built.manifest["facts"]["audit"]["accepted"] == cfg.audit.accept
    found = json.loads((built.out / "audit" / "audit.json").read_text())["findings"]
    counts = {f["check"]: f["found"] for f in found if f["verdict"] == "accepted"}
    assert counts == {"later_encounter": 1, "addendum": 1}
    with pytest.raises(InputError, match=r"failed: .*(later_encounter|addendum)"):
        build(late_and_amended(), tmp_path / "strict", replace(cfg, audit=AuditConfig()))


@pytest.mark.parametrize("family", ["recommended", "paper"])
def test_family_reads_a_stay_its_way(family: str, tmp_path: Path) -> None:
    cfg = (TASKS_DEFAULT if family == "recommended" else TASKS_PAPER).tasks
    cfg = replace(cfg, windows=EVERYTHING, denial_windows=EVERYTHING, denial_other_half="train")
    built = build(one_of_each(), tmp_path, cfg)
    labels = {task: built.labels(task) for task in cfg.tasks}
    mine = {
        "death in the stay": labels["readmission"].get("dies"),
        "transfer": labels["readmission"].get("moved"),
        "no follow-up": labels["readmission"].get("last"),
        "no disposition": labels["mortality"].get("nobody wrote where"),
        "late note": labels["los"].get("late note"),
        "pending": labels["denial"].get("waits"),
        "young claim": labels["denial"].get("last"),
    }
    if family == "recommended":
        assert mine == dict.fromkeys(mine) | {"transfer": 0}
    else:
        assert mine == dict.fromkeys(mine, 0) | {"transfer": 1}
    said = json.loads((built.out / "statistics.json").read_text())
    assert bool(said["readmission"]["cautions"]) == (family == "paper")
