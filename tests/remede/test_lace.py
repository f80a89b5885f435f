"""The LACE index: published examples, drawn stays, and the baseline that `evaluate` makes of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_benchmark import write_tasks

from lang1 import config as configuration
from lang1 import runs
from lang1.config import EvaluateConfig, TasksConfig
from lang1.errors import InputError
from lang1.metrics.ranking import auroc
from lang1.remede import lace
from lang1.remede.baselines import Fitted, Labelled
from lang1.tasks.charlson import read_map

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
from timelines import Hospital

NAN = float("nan")


def total(days: float, is_acute: float, comorbidity: float, visits: float) -> int:
    return int(lace.points(*(np.array([value]) for value in (days, is_acute, comorbidity, visits))).sum())


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        # the two examples of the R package cliot (lace_readmission_index)
        ((5, 1, 5, 2), 14),
        ((2, 0, 0, 0), 2),
        # the ends of the index, CMAJ 2010: 0 to 19
        ((0, 0, 0, 0), 0),
        ((14, 1, 4, 4), 19),
        ((200, 1, 30, 60), 19),
    ],
)
def test_published_examples(known: tuple[float, ...], wanted: int) -> None:
    assert total(*known) == wanted


def test_every_line_of_the_published_table() -> None:
    lines = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: 4, 7: 5, 13: 5, 14: 7, 90: 7}
    assert {days: total(days, 0, 0, 0) for days in lines} == lines
    lines = {0: 0, 1: 1, 2: 2, 3: 3, 4: 5, 9: 5}
    assert {sum_: total(0, 0, sum_, 0) for sum_ in lines} == lines
    lines = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 9: 4}
    assert {visits: total(0, 0, 0, visits) for visits in lines} == lines
    assert (total(0, 1, 0, 0), total(0, 0, 0, 0)) == (3, 0)


def test_what_is_not_known_has_no_points() -> None:
    assert (total(NAN, 1, 2, 1), total(3, NAN, 2, 1), total(3, 1, NAN, 1), total(3, 1, 2, NAN)) == (6, 6, 7, 8)


def test_every_category_with_points_is_one_of_the_map() -> None:
    assert set(lace.WEIGHTS) <= {row.category for row in read_map()}
    assert {row.category for row in read_map()} - set(lace.WEIGHTS) == {
        "peptic ulcer disease",
        "hemiplegia or paraplegia",
    }


def tasks_folder(folder: Path, cfg: TasksConfig | None = None) -> Path:
    runs.run_stage(folder, "tasks", configuration.dump(cfg or TasksConfig()), 1, {}, lambda stage: None)
    return folder


def scored(hospital: Hospital, folder: Path, cfg: TasksConfig | None = None) -> lace.Lace:
    records, _ = hospital.write(folder)
    return lace.score_stays(records, tasks_folder(folder / "tasks", cfg), folder / "scratch")


def visit(hospital: Hospital, encounter_id: str, start: str, end: str, patient_id: str = "p") -> None:
    hospital.stay(encounter_id, start, end, patient_id, notes=False, encounter_class="emergency", disposition=None)


def test_a_stay_s_points_come_from_its_records(tmp_path: Path) -> None:
    """5 days, by ambulance, heart failure now and dementia before, two emergency visits that count of five."""
    hospital = Hospital()
    hospital.stay("old", "2019-01-01 08:00", "2019-01-02 08:00", admission_type="elective")
    hospital.code("old", "F03.90")
    hospital.stay("index", "2020-06-10 20:00", "2020-06-15 09:00", admission_type="emergency")
    hospital.code("index", "I50.9")
    hospital.stay("later", "2020-09-01 08:00", "2020-09-01 18:00", admission_type="elective")
    hospital.code("later", "C78.0")  # not known in June
    visit(hospital, "too-old", "2019-12-09 10:00", "2019-12-09 12:00")
    visit(hospital, "first", "2019-12-11 10:00", "2019-12-11 12:00")
    visit(hospital, "second", "2020-05-01 10:00", "2020-05-01 12:00")
    visit(hospital, "that-led-to-it", "2020-06-10 14:00", "2020-06-10 19:00")
    visit(hospital, "after", "2020-06-20 10:00", "2020-06-20 12:00")
    visit(hospital, "another-patient", "2020-05-01 10:00", "2020-05-01 12:00", "q")
    found = scored(hospital, tmp_path)
    assert found.scores["index"] == 4 + 3 + 5 + 2
    # elective, dementia 3, no visit
    assert found.scores["old"] == 1 + 0 + 3 + 0
    # within a day; dementia, heart failure and the metastasis of this stay; three visits in the half year
    assert found.scores["later"] == 0 + 0 + 5 + 3
    assert found.gaps([]) == {}


def test_transfers_are_one_stay_as_in_the_tasks(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-06-01 08:00", "2020-06-04 08:00", admission_type="urgent")
    hospital.stay("b", "2020-06-04 20:00", "2020-06-08 08:00", admission_type="elective")
    found = scored(hospital, tmp_path / "day")
    assert found.scores == {"a": 5 + 3}
    apart = scored(hospital, tmp_path / "hour", TasksConfig(transfer_hours=1.0))
    assert apart.scores == {"a": 3 + 3, "b": 4}


def test_an_emergency_visit_that_led_to_the_stay_makes_it_acute_where_its_type_is_not_known(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-06-01 08:00", "2020-06-02 09:00")
    visit(hospital, "v", "2020-06-01 03:00", "2020-06-01 08:00")
    hospital.stay("b", "2020-06-01 08:00", "2020-06-02 09:00", "q")
    found = scored(hospital, tmp_path)
    assert found.scores == {"a": 4, "b": 1}
    assert found.missing["A"] == {"b"}
    assert found.missing["C"] == {"a", "b"}
    assert found.missing["E"] == frozenset()


def test_stays_without_times_use_the_given_days(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", None, None, notes=False, length_of_stay_days=5.0, sequence=1, admission_type="emergency")
    hospital.code("a", "410.1", "ICD9CM")
    hospital.stay("b", None, None, notes=False, length_of_stay_days=2.0, sequence=2, admission_type="elective")
    hospital.code("b", "250.0", "ICD9CM")
    found = scored(hospital, tmp_path)
    assert found.scores == {"a": 4 + 3 + 1, "b": 2 + 0 + 2}
    assert found.missing["E"] == {"a", "b"}


def test_points_become_the_cohort_s_probabilities() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(0, 20, 20_000)
    p = 1 / (1 + np.exp(3.5 - 0.15 * score))
    labels = (rng.random(len(score)) < p).astype(np.int64)
    halves: Sequence[Labelled] = [
        Labelled(score[half, None].astype(float), labels[half]) for half in (slice(0, 10_000), slice(10_000, None))
    ]
    fitted = lace.fit(*halves)
    assert isinstance(fitted, Fitted)
    assert fitted.facts["log_odds_a_point"] == pytest.approx(0.15, abs=0.02)
    assert fitted.facts["log_odds_at_0"] == pytest.approx(-3.5, abs=0.25)
    np.testing.assert_allclose(fitted.predict(halves[1].features)[:, 1], p[10_000:], atol=0.02)
    value = auroc(labels[10_000:] == 1, score[10_000:].astype(float))
    assert fitted.facts["validation"] == pytest.approx(value, abs=1e-6)
    one = Labelled(halves[0].features, np.zeros(10_000, dtype=np.int64))
    assert "all of one class" in str(lace.fit(one, halves[1]))


def write_records(tasks: Path, records: Path, has_codes: bool) -> None:
    """Records of the small benchmark's readmission rows: who comes back stayed long and came by ambulance."""
    hospital = Hospital()
    for path in sorted((tasks / "readmission").glob("*.parquet")):
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        for row in rows:
            end, kind = ("2020-01-09", "emergency") if row["label"] else ("2020-01-03", "elective")
            # every stay a patient of its own: two of the same days would be one stay
            patient = f"of-{row['encounter_id']}"
            hospital.stay(row["encounter_id"], "2020-01-01", end, patient, notes=False, admission_type=kind)
            if has_codes:
                hospital.code(row["encounter_id"], "I10", patient_id=patient)
    hospital.note("none", "H&P", "2020-01-01")
    if not has_codes:
        hospital.code("none", "I10")
    hospital.write(records.parent)


def test_evaluate_scores_it_on_readmission_alone_and_says_what_the_records_lack(
    inputs: Any, config: EvaluateConfig, tmp_path: Path
) -> None:
    tasks = write_tasks(tmp_path, ("readmission", "mortality"))
    write_records(tasks, tmp_path / "records", has_codes=False)
    few = replace(config, baselines=("lace",), tasks=("readmission", "mortality"), splits=("test",))
    found = inputs.again("lace", few, tasks=tasks, records=tmp_path / "records", models={})
    summary = found.json("summary.json")
    (result,) = summary["results"]
    assert (result["task"], result["model"], result["value"], result["n"]) == ("readmission", "lace", 1.0, 60)
    assert [(s["task"], s["model"], s["why"]) for s in summary["facts"]["skipped"]] == [
        ("mortality", "lace", "LACE is a score for readmission only")
    ]
    facts = summary["facts"]["baselines"]["lace, readmission"]
    assert facts["missing"] == {
        "C": "the records give no diagnosis codes for 380 of 380 rows: 0 points",
        "E": "the records give no emergency visits for 380 of 380 rows: 0 points",
    }
    assert facts["log_odds_a_point"] > 0
    assert runs.read_manifest(found.out)["facts"]["baselines"]["lace, readmission"] == facts
    scores = pq.read_table(found.out / "lace" / "readmission" / "test.parquet")
    assert set(scores["method"].to_pylist()) == {"classifier"}


def test_without_records_it_is_skipped_and_records_without_a_table_are_refused(
    inputs: Any, config: EvaluateConfig, tmp_path: Path
) -> None:
    few = replace(config, baselines=("tfidf+logistic", "lace"), tasks=("readmission",), splits=("test",))
    found = inputs.again("no-lace", few, models={})
    assert found.json("summary.json")["facts"]["skipped"] == [
        {"task": "readmission", "model": "lace", "why": "no records were given"}
    ]
    (tmp_path / "records").mkdir()
    with pytest.raises(InputError, match="records/encounters: no Parquet files"):
        inputs.again("bad-lace", few, models={}, records=tmp_path / "records")
