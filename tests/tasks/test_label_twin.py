"""On random timelines the SQL and the plain loops of twin.py give the same rows, labels and index notes."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from timelines import Hospital, config, fill_all
from twin import WEIGHTS, answer

from lang1.config import TasksConfig
from lang1.tasks.build import make_facts
from lang1.tasks.cohort import rules_for, select_rows
from lang1.tasks.database import open_database

START = datetime(2020, 1, 1)
PATIENTS = 120
# Steps that meet the rules' borders: equal times, 24 h, 120 h, 30 days, and a minute to either side.
BORDERS = [0, 1, 60, 600, 1439, 1440, 1441, 2880, 7199, 7200, 7201, 43_199, 43_200, 43_201]
GAPS = [*BORDERS, *BORDERS, 5_000, 12_000, 20_000, 30_000, 43_000, 43_700, 60_000, 90_000]
STATUSES = ["no denial", "no denial", "pending", "final, adverse determination", "final, favorable determination"]


def random_hospital(seed: str) -> Hospital:
    hospital, draw = Hospital(), random.Random(seed)
    for p in range(PATIENTS):
        _draw_patient(draw, hospital, f"p{p}")
    return hospital


def _draw_patient(draw: random.Random, hospital: Hospital, patient: str) -> None:
    clock = START + timedelta(minutes=draw.randrange(300_000))
    for n in range(draw.randint(1, 5)):
        name = f"{patient}/{draw.randint(0, 99):02d}{n}"
        clock += timedelta(minutes=draw.choice(GAPS) - draw.choice([0, 0, 0, 1440]))
        end = clock + timedelta(minutes=draw.choice([*BORDERS, 3_000, 4_000, 5_000, 6_000, 9_000, 15_000, -60]))
        hospital.encounters.append({
            "encounter_id": name, "patient_id": patient, "admit_time": clock,
            "encounter_class": draw.choice(["inpatient"] * 8 + ["emergency", "outpatient"]),
            "discharge_time": draw.choice([end] * 30 + [None]),
            "discharge_disposition": draw.choice(["Home"] * 10 + ["Expired", None]),
            "service": draw.choice(["medicine"] * 8 + ["dialysis", None]),
            "admission_type": draw.choice(["urgent"] * 3 + ["elective", None, "newborn"]),
            "department": draw.choice(["4 West"] * 8 + ["Rusk Rehabilitation 9", None]),
        })  # fmt: skip
        _draw_notes(draw, hospital, patient, name, clock, end)
        for _ in range(draw.choice([0, 1, 1, 1, 2])):
            hospital.claim(name, draw.choice(STATUSES))
        for code in draw.sample(sorted(WEIGHTS), draw.randint(0, 3)):
            coded = draw.choice([None, None, end, end + timedelta(days=20)])
            hospital.code(name, code, patient_id=patient, coded_time=coded)
        clock = end
    death = clock + timedelta(minutes=draw.choice([-3000, -1440, 0, 5000, 40_000]))
    hospital.patient(patient, death_date=draw.choice([None, None, None, death.date()]))


def _draw_notes(
    draw: random.Random, hospital: Hospital, patient: str, name: str, start: datetime, end: datetime
) -> None:
    for note_type, anchor in (("H&P", start), ("discharge summary", end)):
        for k in range(draw.choice([0, 1, 1, 2, 3])):
            signed = anchor + timedelta(minutes=draw.choice([-1, 0, 0, 1, 1, 60, 60, 600, *BORDERS]))
            before = hospital.notes[-1].get("written_time") if k and draw.random() < 0.3 else None
            written = before or signed + timedelta(minutes=draw.choice([-600, -60, -60, -60, 0, 0, 0, 1]))
            kind = draw.choice([note_type] * 6 + ["Physician note" if note_type == "H&P" else "progress"])
            hospital.note(
                name, kind, draw.choice([str(signed)] * 9 + [None]), patient,
                f"{name}-{note_type}-{draw.randint(0, 9)}{k}", draw.choice([False] * 9 + [True]),
                written_time=draw.choice([written] * 6 + [None]),
                author_role=draw.choice([None, None, "resident", "nurse"]),
                department=draw.choice(["4 West"] * 8 + ["Palliative Care"]),
                text=draw.choice(["words of a note"] * 6 + ["Addendum: words", "many more words of a note"]),
            )  # fmt: skip


CONFIGURATIONS = [
    config(claims_follow_up_days=0),
    config(exclude_planned=True, claims_follow_up_days=1, los_unit="elapsed", max_note_delay_hours=None),
    config(transfer_hours=0.0, readmission_days=20, max_summary_delay_hours=0.0),
    config(readmission_by="admission_note", readmission_boundary="calendar", hp_choice="longest",
           summary_choice="first", cci_codes="prior", denial_rule="adverse", claims_follow_up_days=0),
    config(readmission_by="admission_note", exclude_planned=True, planned_ends_search=False,
           exclude_newborns=True, overlapping_stays="exclude", died_after_discharge="exclude",
           admission_note_types=("Physician note", "H&P"), cci_classes=4),
    config(prediction_clock="written", later_edits="keep", exclude_planned=True, planned_ends_search=False,
           last_stay="exclude", hp_choice="last", summary_choice="longest", readmission_boundary="before"),
    config(exclude_post_death=False, notes_within_stay=False, max_note_delay_hours=None, exclude_unfollowed=False,
           max_summary_delay_hours=None, exclude_death_in_stay=False, exclude_no_disposition=False,
           exclude_uncoded=False, denial_rule="otherwise", exclude_services=(), exclude_departments=(),
           claims_follow_up_days=0, transfer_hours=0.0),
    config(readmission_by="admission_note", exclude_planned=True, prediction_clock="written", split_unit="note"),
]  # fmt: skip


def sql_rows(hospital: Hospital, cfg: TasksConfig) -> dict[str, dict[str, Any]]:
    """What the stage's tables hold, without writing a stage."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records, corpus = hospital.write(folder)
        database = open_database(records, corpus, folder)
        make_facts(database, cfg, seed=7)
        for task in cfg.tasks:
            select_rows(database, task, cfg)
        # the half that denial drops is no matter of labels: read before the splits
        rules = " AND ".join(r.column for r in rules_for("denial", cfg) if r.column != "is_in_denial_half")
        denial = database.execute(f"SELECT encounter_id, denial_label, hp_note_id FROM facts WHERE {rules}").fetchall()
        rows = {
            task: database.execute(f"SELECT encounter_id, label, note_id FROM rows_{task}").fetchall()
            for task in ("readmission", "mortality", "los", "cci")
        } | {"denial": denial}
        database.close()
    return {
        task: {e: (label, note) for e, label, note in found if not e.startswith("filler")}
        for task, found in rows.items()
    }


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_fast_labels_equal_the_plain_loops(number: int) -> None:
    cfg = CONFIGURATIONS[number]
    hospital = random_hospital(f"twin {number}")
    fill_all(hospital, has_last=False)
    wanted = answer(hospital, cfg)
    found = sql_rows(hospital, cfg)
    for task in wanted:
        without_fillers = {e: row for e, row in wanted[task].items() if not e.startswith("filler")}
        assert found[task] == without_fillers, task
        labels = Counter(label for label, _ in without_fillers.values())
        assert min(labels.values()) >= 1
        assert labels.total() > 15, (task, labels)
