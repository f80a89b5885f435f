"""Numbers of one task and split: patients are resampled together, models and truth on the same draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lang1.errors import InputError
from lang1.metrics.calibration import LOWER_IS_BETTER
from lang1.metrics.proportion import wilson_interval
from lang1.remede import measure
from lang1.remede.ceiling import share_of_achievable
from lang1.remede.compare import METRICS
from lang1.remede.details import Wanted


def group(n: int = 60, options: int = 2, patients: list[str] | None = None) -> measure.Group:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, options, n)
    good = rng.dirichlet(np.ones(options), n) + 0.4 * np.eye(options)[labels]
    return measure.Group(
        "los" if options > 2 else "mortality",
        "test",
        labels,
        patients or [str(i) for i in range(n)],
        [str(i) for i in range(n)],
        {"good": good / good.sum(axis=1, keepdims=True), "blind": np.full((n, options), 1 / options)},
    )


@pytest.mark.parametrize("options", [2, 4])
def test_each_score_is_told_to_rise_or_to_fall_with_a_better_model(options: int) -> None:
    shown = group(options=options)
    sure = np.eye(options)[shown.labels]  # a model that knows every answer, and one that knows every wrong one
    scores = replace(shown, p={"right": sure, "wrong": np.roll(sure, 1, axis=1)})
    right, wrong = (measure.resample(scores, None, 5, 1)[model].scores for model in ("right", "wrong"))
    named = [name for name in right if "calibration_" not in name]  # of a slope 1 is best, of an intercept 0
    falling = {name for name in named if (right[name].value or 0) < (wrong[name].value or 0)}
    assert falling == set(LOWER_IS_BETTER)
    assert set(METRICS) - {"auroc"} <= set(named)


def test_rows_of_one_patient_are_drawn_together() -> None:
    single, several = group(patients=["only"] * 60), group()
    assert len(set(measure.resample(single, None, 50, 1)["good"].draws)) == 1
    assert measure.resample(several, None, 50, 1)["good"].draws.std() > 0.01


def test_rows_can_be_resampled_beside_patients() -> None:
    copies = group(n=90, patients=[str(i // 9) for i in range(90)])  # nine rows a patient
    for by_patient in (copies.labels, copies.p["good"], copies.p["blind"]):
        by_patient[:] = np.repeat(by_patient[::9], 9, axis=0)
    found = measure.resample(copies, None, 300, 1, also_by_row=True)["good"]
    assert found.row_draws is not None
    assert found.value is not None and 0.5 < found.value < 1  # neither has a spread at the ends
    assert np.nanstd(found.draws) > 1.5 * np.nanstd(found.row_draws)
    assert measure.resample(copies, None, 20, 1)["good"].row_draws is None


def test_delong_takes_patients_as_the_bootstrap_does() -> None:
    once = group(n=60)
    copied = measure.Group(
        once.task,
        once.split,
        np.repeat(once.labels, 5),
        [patient for patient in once.patients for _ in range(5)],
        [str(i) for i in range(300)],
        {model: np.repeat(p_NK, 5, axis=0) for model, p_NK in once.p.items()},
    )
    told = []
    for scores in (once, copied):  # five copies of every row tell nothing new
        sampled = measure.resample(scores, None, 20, 1)
        delong = measure.metrics_of(scores, "good", sampled)["delong"]
        told.append([*delong.values(), measure.compare(scores, "good", "blind", sampled)["p_delong"]])
    assert told[1] == pytest.approx(told[0])
    by_row = measure.resample(copied, None, 20, 1, by="row")
    assert measure.metrics_of(copied, "good", by_row)["delong"]["se"] < 0.6 * told[0][0]


def test_a_model_that_knows_nothing_is_at_chance_in_every_resample() -> None:
    for options in (2, 4):
        found = measure.resample(group(options=options), None, 50, 1)["blind"]
        assert found.value == 0.5
        assert set(found.draws) == {0.5}


def test_rows_without_a_truth_are_left_out_of_the_ceiling_only() -> None:
    scores = group()
    truth_NK = scores.p["good"].copy()
    truth_NK[:2] = np.nan
    usable = measure.usable_truth(truth_NK)
    assert usable is not None
    found = measure.result_of(scores, "good", measure.resample(scores, usable, 50, 1), usable)
    assert (found["n"], found["ceiling_n"]) == (60, 58)
    truth_NK[:4] = np.nan
    assert measure.usable_truth(truth_NK) is None


def test_a_class_without_rows_is_absent_and_in_no_mean() -> None:
    scores = group(options=4)
    scores.labels[scores.labels == 3] = 0
    sampled = measure.resample(scores, None, 50, 1)
    result, metrics = measure.result_of(scores, "good", sampled, None), measure.metrics_of(scores, "good", sampled)
    assert (result["classes_present"], result["classes_absent"]) == ([0, 1, 2], [3])
    assert metrics["per_class"]["3"]["auroc"] is None
    assert result["value"] == pytest.approx(np.mean([metrics["per_class"][k]["auroc"] for k in "012"]))
    assert result["ci_low"] < result["value"] < result["ci_high"]


def test_one_class_alone_gives_null_and_says_how_many_resamples_had_no_value() -> None:
    scores = group()
    scores.labels[:] = 0
    result = measure.result_of(scores, "good", measure.resample(scores, None, 50, 1), None)
    assert (result["value"], result["ci_low"], result["undefined_resamples"]) == (None, None, 50)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [2, 4])
@pytest.mark.parametrize("only", [0, 1])
def test_everything_that_one_class_leaves_null_is_named_with_the_reason(options: int, only: int) -> None:
    scores = group(options=options)
    scores.labels[:] = only
    sampled = measure.resample(scores, None, 50, 1, wanted=Wanted((0.5, 0.999), (0.1,)))
    row = measure.metrics_of(scores, "good", sampled)
    assert row["auprc"] is None and row["undefined"]["auprc"] == "the rows are all of one class"
    bounds = ("_ci_low", "_ci_high", "_normal_low", "_normal_high")

    def nulls(part: dict[str, Any], where: str) -> set[str]:
        return {f"{where}{name}" for name, value in part.items() if value is None and not name.endswith(bounds)}

    found = nulls(row, "") - {"by_row"} | {"value"} | {"delong"}
    for k, part in row["per_class"].items():
        found |= nulls(part, f"per_class.{k}.") - {f"per_class.{k}.ci_low", f"per_class.{k}.ci_high"}
    for point in row["operating"]:
        found |= nulls(point, f"operating.{point['at']}={point['level']:g}.")
    assert set(row["undefined"]) == found
    if options == 2:
        assert row["undefined"]["operating.probability=0.999.ppv"] == "no row is flagged"
        missing = "sensitivity" if only == 0 else "specificity"
        assert row["undefined"][f"operating.alert_rate=0.1.{missing}"] == f"no row of option {1 - only}"
    else:
        assert row["undefined"]["per_class.3.auroc"] == "no row of this option"


def test_wilsons_interval_of_a_share_counts_patients_and_is_marked() -> None:
    scores = group(n=60, patients=[str(i // 6) for i in range(60)])  # ten patients
    scores.p["good"][:] = np.eye(2)[scores.labels]  # never wrong
    shares = {}
    for by in ("patient", "row"):
        row = measure.metrics_of(scores, "good", measure.resample(scores, None, 50, 1, by=by))  # type: ignore[arg-type]
        (point,) = row["operating"]
        assert (row["accuracy"], row["accuracy_interval"], point["sensitivity_interval"]) == (1, "wilson", "wilson")
        assert "brier_interval" not in row
        shares[by] = (row["accuracy_ci_low"], point["sensitivity_ci_low"])
    assert shares["patient"][0] == pytest.approx(wilson_interval(10, 10)[0])
    assert shares["row"][0] == pytest.approx(wilson_interval(60, 60)[0])
    sick = {patient for patient, label in zip(scores.patients, scores.labels, strict=True) if label == 1}
    assert shares["patient"][1] == pytest.approx(wilson_interval(len(sick), len(sick))[0])


def test_a_ceiling_at_chance_gives_no_share() -> None:
    assert share_of_achievable(0.6, 0.5) is None
    assert share_of_achievable(0.6, 0.7) == pytest.approx(0.5)


def test_score_files_of_other_rows_are_not_compared() -> None:
    import pyarrow as pa

    def table(rows: list[str]) -> pa.Table:
        return pa.table({"row_id": rows, "label": [0, 1], "patient_id": rows, "encounter_id": rows, "p_0": [0.5, 0.5]})

    with pytest.raises(InputError, match="scores of b on los, test: other rows than those of a"):
        measure.group_scores("los", "test", {"a": table(["1", "2"]), "b": table(["1", "3"])})
