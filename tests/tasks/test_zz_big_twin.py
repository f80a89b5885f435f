"""On random timelines the SQL and the plain loops of twin.py give the same rows, labels and index notes."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from timelines import Hospital, config, fill
from twin import answer

from lang1.config import TasksConfig
from lang1.tasks.build import make_facts
from lang1.tasks.cohort import select_rows
from lang1.tasks.database import open_database

START = datetime(2020, 1, 1)
# Steps that meet the rules' borders: equal times, 24 h, 120 h, 30 days, and a minute to either side.
STEPS = [0, 1, 60, 600, 1439, 1440, 1441, 2880, 7199, 7200, 7201, 20_000, 43_199, 43_200, 43_201]
minutes = st.sampled_from(STEPS)


@st.composite
def hospitals(draw: st.DrawFn) -> Hospital:
    hospital = Hospital()
    for p in range(draw(st.integers(1, 4))):
        _draw_patient(draw, hospital, f"p{p}")
    return hospital


def _draw_patient(draw: st.DrawFn, hospital: Hospital, patient: str) -> None:
    clock = START + timedelta(minutes=draw(minutes))
    for n in range(draw(st.integers(1, 5))):
        name = f"{patient}/{draw(st.integers(0, 99)):02d}{n}"
        clock += timedelta(minutes=draw(minutes) - draw(st.sampled_from([0, 0, 1440])))
        end = clock + timedelta(minutes=draw(st.sampled_from([*STEPS, -60])))
        hospital.encounters.append({
            "encounter_id": name, "patient_id": patient, "admit_time": clock,
            "encounter_class": draw(st.sampled_from(["inpatient"] * 4 + ["emergency"])),
            "discharge_time": draw(st.sampled_from([end] * 8 + [None])),
            "discharge_disposition": draw(st.sampled_from(["Home"] * 6 + ["Expired"])),
            "service": draw(st.sampled_from(["medicine", "medicine", "dialysis", None])),
            "admission_type": draw(st.sampled_from(["urgent", "elective", None])),
        })  # fmt: skip
        _draw_notes(draw, hospital, patient, name, clock, end)
        for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
            hospital.claim(name, draw(st.sampled_from(
                ["no denial", "no denial", "pending", "final, adverse determination"])))  # fmt: skip
        clock = end
    death = clock + timedelta(minutes=draw(st.sampled_from([-3000, -1440, 0, 5000])))
    hospital.patient(patient, death_date=draw(st.sampled_from([None, None, None, death.date()])))


def _draw_notes(draw: st.DrawFn, hospital: Hospital, patient: str, name: str, start: datetime, end: datetime) -> None:
    for note_type, anchor in (("H&P", start), ("discharge summary", end)):
        for k in range(draw(st.sampled_from([0, 1, 1, 2]))):
            signed = anchor + timedelta(minutes=draw(st.sampled_from([-1, 0, 0, 0, 1, *STEPS])))
            hospital.note(
                name, note_type, draw(st.sampled_from([str(signed)] * 9 + [None])), patient,
                f"{name}-{note_type}-{draw(st.integers(0, 9))}{k}", draw(st.sampled_from([False] * 5 + [True])),
            )  # fmt: skip


configurations = st.sampled_from([
    config(),
    config(exclude_planned=True, los_unit="elapsed", max_note_delay_hours=None),
    config(transfer_hours=0.0, readmission_days=20, max_summary_delay_hours=0.0),
])  # fmt: skip


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
        denial = database.execute(
            "SELECT encounter_id, denial_label, hp_note_id FROM facts WHERE is_first_of_stay AND has_ended "
            "AND has_final_status AND hp_is_usable"
        ).fetchall()
        rows = {
            task: database.execute(f"SELECT encounter_id, label, note_id FROM rows_{task}").fetchall()
            for task in ("readmission", "mortality", "los")
        } | {"denial": denial}
        database.close()
    return {
        task: {e: (label, note) for e, label, note in found if not e.startswith("filler")}
        for task, found in rows.items()
    }


@settings(
    phases=[Phase.generate], max_examples=250, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck)
)
@given(hospitals(), configurations)
def test_fast_labels_equal_the_plain_loops(hospital: Hospital, cfg: TasksConfig) -> None:
    fill(hospital, stays=12)
    wanted = answer(hospital, cfg)
    found = sql_rows(hospital, cfg)
    for task in wanted:
        without_fillers = {e: row for e, row in wanted[task].items() if not e.startswith("filler")}
        assert found[task] == without_fillers, task
