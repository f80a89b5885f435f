"""What follows what: readmissions, transfers, death, and an H&P that knows nothing of the future."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lang1.simulate.course import GAP_DAYS, simulate_stays
from lang1.simulate.notes_hp import AdmissionChart, write_hp
from lang1.simulate.population import HOSPITALS, MINUTES, draw_patients
from lang1.simulate.styles import STYLES
from lang1.simulate.writing import words_of


def stream(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))


def test_a_stay_follows_within_thirty_days_only_where_a_readmission_was_drawn() -> None:
    patients = draw_patients(3000, HOSPITALS["main"], stream(1))
    stays, death = simulate_stays(patients, HOSPITALS["main"], stream(2), stream(3))
    order = np.lexsort((stays.admit, stays.patient))
    end_of_record = stays.admit.max()
    followed = 0
    for here, there in itertools.pairwise(order):
        drawn = stays.outcomes["readmitted"][here]
        if stays.patient[here] != stays.patient[there]:
            if drawn:  # nothing follows only because the record ends
                assert stays.discharge[here] > end_of_record - 31 * MINUTES
            continue
        gap = (stays.admit[there] - stays.discharge[here]) / MINUTES
        assert not stays.outcomes["died"][here]
        assert 1.5 < gap < 29.5 if drawn else gap > GAP_DAYS - 1
        followed += drawn
    assert followed > 200
    dead = death[stays.patient]
    assert (stays.discharge[dead > 0] <= dead[dead > 0]).all()


def test_labels_from_the_warehouse_agree_with_the_draws(hospital: Path, warehouse: Any) -> None:
    """Transfers merged, the share of readmitted stays is what the truth expects."""
    visits = warehouse.execute(
        "SELECT person_id, visit_occurrence_id, visit_start_datetime, visit_end_datetime, discharged_to_source_value "
        "FROM visit_occurrence WHERE visit_concept_id = 9201 ORDER BY person_id, visit_start_datetime"
    ).fetchall()
    truth = {row["encounter_id"]: row["p_1"] for row in pq.read_table(
        hospital / "truth.parquet", filters=[("task", "=", "readmission")]).to_pylist()}  # fmt: skip
    merged: list[list[Any]] = []
    for person, visit, start, end, place in visits:
        last = merged[-1] if merged else None
        if last and last[0] == person and last[3] is not None and (start - last[3]).total_seconds() < 86_400:
            assert last[4] == "Transfer"
            last[3], last[4] = end, place
        else:
            merged.append([person, visit, start, end, place])
    assert len(visits) - len(merged) > 5
    found, expected = 0, 0.0
    for here, there in itertools.pairwise(merged):
        if here[3] is None or here[3].year >= 2024 or here[4] == "Expired":
            continue
        gap = (there[2] - here[3]).total_seconds() / 86_400 if there[0] == here[0] else 1e9
        found += 0 < gap <= 30
        expected += truth[str(here[1])]
    assert abs(found - expected) < 4 * np.sqrt(expected)


def test_an_hp_does_not_change_when_everything_later_does() -> None:
    """Other outcomes, same facts: the first stays' H&Ps are the same to the letter."""
    patients = draw_patients(400, HOSPITALS["main"], stream(4))
    texts = []
    for outcomes in (5, 6):
        stays, _ = simulate_stays(patients, HOSPITALS["main"], stream(7), stream(outcomes))
        first = np.flatnonzero(stays.number == 0)
        chart = AdmissionChart(stays, patients)
        texts.append(
            ["\n".join(write_hp(chart, i, words_of("main"), STYLES[1], 3, Random(int(i)), 1.0)) for i in first]
        )
        died = stays.outcomes["died"][first]
        texts[-1].append(str(died.sum() > 0))
    assert texts[0] == texts[1]


def test_an_hp_is_signed_before_the_stay_ends_and_names_no_death(warehouse: Any) -> None:
    late, total = warehouse.execute(
        "SELECT sum(CASE WHEN note_signed_datetime >= visit_end_datetime THEN 1 ELSE 0 END), count(*) FROM note "
        "JOIN visit_occurrence USING (visit_occurrence_id) WHERE note_title = 'H&P'"
    ).fetchone()
    assert late / total < 0.01  # those that are signed after five days
    named = warehouse.execute(
        "SELECT count(*) FROM note WHERE note_title = 'H&P' AND regexp_matches(lower(note_text), "
        "'expired|deceased|time of death|passed away|discharged to|length of stay|readmi|denial was')"
    ).fetchone()
    assert named == (0,)


def test_nothing_follows_death(warehouse: Any) -> None:
    assert warehouse.execute(
        "SELECT count(*) FROM death d JOIN visit_occurrence v USING (person_id) "
        "WHERE v.visit_start_datetime > d.death_datetime"
    ).fetchone() == (0,)
    expired = warehouse.execute(
        "SELECT count(*), sum(CASE WHEN d.death_datetime = v.visit_end_datetime THEN 1 ELSE 0 END) "
        "FROM visit_occurrence v "
        "LEFT JOIN death d USING (person_id) WHERE discharged_to_source_value = 'Expired'"
    ).fetchone()
    assert expired[0] == expired[1] > 20


def test_stays_of_a_patient_do_not_overlap(warehouse: Any) -> None:
    spans = defaultdict(list)
    for person, start, end in warehouse.execute(
        "SELECT person_id, visit_start_datetime, visit_end_datetime FROM visit_occurrence"
    ).fetchall():
        spans[person].append((start, end))
    for span in spans.values():
        span.sort()
        for (_, end), (start, _) in itertools.pairwise(span):
            assert end is not None and end <= start
