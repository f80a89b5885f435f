"""A task of one's own: its SQL gives the rows, the house splits, files, statistics, audit; faults are one line."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from meds import LabelSchema
from test_audit import CONFIG, findings, hospital
from timelines import Built, Hospital, build, config

from lang1 import runs
from lang1.config import load_config, read_own_task
from lang1.corpus.hashes import patient_fold
from lang1.errors import ConfigError, InputError
from lang1.tasks import build_tasks
from lang1.tasks.schema import ROWS

RECIPES = Path(__file__).parents[2] / "recipes" / "own-task"
WEST = """
SELECT stays.stay_id AS encounter_id, min(signed_time) + INTERVAL 30 MINUTE AS prediction_time,
    CASE WHEN any_value(encounters.department) = '3 West' THEN 'west' ELSE 'east' END AS label
FROM stays JOIN notes USING (encounter_id) JOIN encounters USING (encounter_id)
WHERE notes.note_type = 'H&P' GROUP BY stays.stay_id
"""


def define(folder: Path, sql: str = WEST, name: str = "side", **changes: Any) -> str:
    """A YAML file and its SQL; returns the YAML's path."""
    facts = {
        "id": name,
        "question": "Which side?",
        "options": ["east", "west"],
        "sql": changes.pop("file", f"{name}.sql"),
    }
    facts |= changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.sql").write_text(sql)
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))
    return str(path)


def build_own(folder: Path, *own: str, given: Hospital | None = None, **changes: Any) -> Built:
    from dataclasses import replace

    cfg = replace(CONFIG, own=own, tasks=changes.pop("tasks", ("los",)), **changes)
    return build(given or hospital(), folder, cfg, filled=False)


def test_rows_have_the_labels_splits_and_files_of_every_task(tmp_path: Path) -> None:
    built = build_own(tmp_path, define(tmp_path / "own", outcome=["encounters.department"]), tasks=("los", "mortality"))
    rows, twins = built.rows("side"), {row["encounter_id"]: row for row in built.rows("los")}
    wards = {e["encounter_id"]: e.get("department") for e in hospital().encounters}
    assert len(rows) > 100
    for row in rows:
        assert row["label"] == int(wards[row["encounter_id"]] == "3 West")
        assert row["row_id"] == f"side-{row['encounter_id']}"
        twin = twins[row["encounter_id"]]
        for column in ("split", "patient_id", "note_id", "text", "note_hash", "age_band", "department"):
            assert row[column] == twin[column], "one assignment, one note, for all tasks"
        assert (row["prediction_time"] - twin["prediction_time"]).total_seconds() == 1800
    for split in ("train", "val", "test", "temporal_1", "temporal_2"):
        assert pq.read_table(built.out / "side" / f"{split}.parquet").schema.equals(ROWS)
    statistics = json.loads((built.out / "statistics.json").read_text())["side"]
    assert statistics["total"]["labels"] == [sum(r["label"] == k for r in rows) for k in (0, 1)]
    question = json.loads((built.out / "questions.json").read_text())["side"]
    assert question["rendered"] == "\nQuestion: Which side?\nA. east\nB. west\nAnswer:"
    audit = findings(built.out / "audit")
    assert audit["label_dependent_window", "side"]["verdict"] == "passed"
    assert audit["note_after_prediction", "side"]["verdict"] == "passed"
    assert (
        "side"
        in audit[
            "patient_in_two_splits_across_tasks", "los, mortality, side".replace("los, mortality", "mortality, los")
        ]["task"]
    )
    labels = pq.read_table(built.out / "meds" / "labels" / "side.parquet")
    LabelSchema.validate(labels)
    assert labels["boolean_value"].to_pylist().count(True) == statistics["total"]["labels"][1]


def test_definition_is_kept_and_reads_back(tmp_path: Path) -> None:
    path = define(tmp_path / "own", outcome_words=["west wing"])
    built = build_own(tmp_path, path, tasks=())
    kept, given = read_own_task(built.out / "own" / "side.yaml"), read_own_task(Path(path))
    assert Path(kept.sql).read_text() == Path(given.sql).read_text() == WEST
    assert {**vars(kept), "sql": ""} == {**vars(given), "sql": ""}


def test_changed_sql_is_another_task_set(tmp_path: Path) -> None:
    path = define(tmp_path / "own")
    built = build_own(tmp_path, path)
    define(tmp_path / "own", WEST.replace("30 MINUTE", "31 MINUTE"))
    with pytest.raises(InputError, match=r"inputs.own side sql changed"):
        build_tasks(
            CONFIG.__class__(**{**vars(CONFIG), "own": (path,), "tasks": ("los",)}),
            records=tmp_path / "records", corpus=tmp_path / "corpus", out=built.out, seed=7,
        )  # fmt: skip


def test_index_note_is_the_last_of_its_type_signed_by_then_in_that_encounter(tmp_path: Path) -> None:
    given = hospital()
    given.note("s002", "progress", "2018-01-10 20:00", "q001", "first")
    given.note("s002", "progress", "2018-01-11 08:00", "q001", "on the minute")
    given.note("s002", "progress", "2018-01-11 08:01", "q001", "too late")
    given.note("s004", "progress", "2018-01-17 08:00", "q002", "only a late one")
    given.note("s006", "progress", "2018-01-20 20:00", "q003", "rejected one", rejected=True)
    given.note("s008", "progress", None, "q004", "unsigned one")
    asked = {"s002": "2018-01-11 08:00", "s004": "2018-01-16 08:00", "s006": "2018-01-21", "s008": "2018-01-26"}
    values = ", ".join(f"('{e}', TIMESTAMP '{t}', {n % 2})" for n, (e, t) in enumerate(asked.items()))
    for n in range(10, 90, 2):
        given.note(f"s{n:03d}", "progress", "2018-01-06", f"q{n // 2:03d}", f"filling {n}")
        values += f", ('s{n:03d}', TIMESTAMP '2019-06-01', {n // 2 % 2})"
    path = define(tmp_path / "own", f"SELECT * FROM (VALUES {values}) AS t(encounter_id, prediction_time, label)",
                  note_type="progress")  # fmt: skip
    built = build_own(tmp_path, path, given=given)
    assert {r["encounter_id"]: r["note_id"] for r in built.rows("side") if r["encounter_id"] in asked} == {
        "s002": "on the minute"
    }
    reasons = built.reasons("side")
    assert reasons["s004"] == "a note of the type progress was signed at or before the prediction time"
    assert reasons["s006"] == "a note of the type progress passed cleaning"
    assert reasons["s008"] == "a note of the type progress was signed"
    assert reasons["s001"] == "is returned by the task's SQL"


def _edited() -> Hospital:
    """Six hours later s002's H&P is signed again, s004 has another author's, s006 one begun later, s008 an addendum."""
    given = hospital()
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("s002", {}),
        ("s004", {"author_role": "nurse"}),
        ("s006", {"written_time": timedelta(hours=9)}),
        ("s008", {"text": "ADDENDUM: walks again", "written_time": timedelta(hours=1)}),
    )
    for name, changes in cases:
        note = next(n for n in given.notes if n["note_id"] == f"{name}-H&P")
        later = {"author_role": note["author_role"], "text": "the same with more"} | changes
        begun = note["written_time"] + later.pop("written_time", timedelta(0))
        signed = note["signed_time"] + timedelta(hours=6)
        given.note(name, "H&P", str(signed), note["patient_id"], f"{name} later", written_time=begun, **later)
    return given


EDITED = ("s002", "s004", "s006", "s008")
AT_A_DAY = WEST.replace("min(signed_time) + INTERVAL 30 MINUTE", "min(signed_time) + INTERVAL 20 HOUR")


def test_later_edit_is_no_index_note(tmp_path: Path) -> None:
    built = build_own(tmp_path, define(tmp_path / "own", AT_A_DAY), given=_edited())
    notes = {r["encounter_id"]: r["note_id"] for r in built.rows("side")}
    assert {name: notes[name] for name in EDITED} == {
        "s002": "s002-H&P", "s004": "s004 later", "s006": "s006-H&P", "s008": "s008-H&P"}  # fmt: skip
    assert findings(built.out / "audit")["addendum", "side"]["verdict"] == "passed"


def test_later_edit_that_is_kept_fails_the_audit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"failed: addendum \(side: 2\);"):
        build_own(tmp_path, define(tmp_path / "own", AT_A_DAY), given=_edited(), later_edits="keep")
    rows = [row for path in (tmp_path / "tasks" / "side").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    notes = {row["encounter_id"]: row["note_id"] for row in rows}
    assert [notes[name] for name in EDITED] == [f"{name} later" for name in EDITED]


def test_encounter_whose_only_note_in_time_is_an_edit_is_counted(tmp_path: Path) -> None:
    given = hospital()
    note = next(n for n in given.notes if n["note_id"] == "s002-H&P")
    note["written_time"] = note["signed_time"] + timedelta(minutes=1)
    reasons = build_own(tmp_path, define(tmp_path / "own"), given=given).reasons("side")
    assert reasons["s002"] == "a note of the type H&P is no addendum and no later edit"
    assert "s004" not in reasons


def test_encounter_that_is_no_inpatient_stay_keeps_its_patients_fold(tmp_path: Path) -> None:
    given = hospital()
    for n in range(40):
        day = f"2019-03-{1 + n % 28:02d}"
        given.stay(f"visit{n}", f"{day} 08:00", f"{day} 12:00", f"v{n}" if n % 2 else f"q{n:03d}", notes=False,
                   encounter_class="emergency")  # fmt: skip
        given.note(f"visit{n}", "ED note", f"{day} 09:00", given.encounters[-1]["patient_id"])
    sql = "SELECT encounter_id, discharge_time AS prediction_time, hash(encounter_id) % 2 AS label FROM encounters "
    path = define(tmp_path / "own", f"{sql} WHERE encounter_class = 'emergency'", note_type="ED note")
    built = build_own(tmp_path, path, given=given)
    rows = built.rows("side")
    assert len(rows) == 40
    assert all(row["split"] == patient_fold(7, row["patient_id"]) for row in rows)
    labels = pq.read_table(built.out / "meds" / "labels" / "side.parquet")["subject_id"].to_pylist()
    splits = pq.read_table(built.out / "meds" / "metadata" / "subject_splits.parquet")["subject_id"].to_pylist()
    assert set(labels) <= set(splits), "a label has a split, also of a patient who never had a stay"


def test_more_than_two_classes_are_whole_numbers_in_meds(tmp_path: Path) -> None:
    sql = WEST.replace("CASE WHEN any_value(encounters.department) = '3 West' THEN 'west' ELSE 'east' END",
                       "hash(stays.stay_id) % 7")  # fmt: skip
    built = build_own(tmp_path, define(tmp_path / "own", sql, options=[f"answer {k}" for k in range(7)]))
    assert {row["label"] for row in built.rows("side")} == set(range(7))
    labels = pq.read_table(built.out / "meds" / "labels" / "side.parquet")
    LabelSchema.validate(labels)
    assert set(labels["integer_value"].to_pylist()) == set(range(7))


def test_cohort_that_reads_its_outcome_fails_the_stage(tmp_path: Path) -> None:
    """The patients of one ward are asked about only on Mondays: the cohort reads what it predicts."""
    sql = WEST.replace("WHERE", "WHERE (encounters.department = '4 East' OR notes.encounter_id < 's100') AND")
    path = define(tmp_path / "own", sql, outcome=["encounters.department"])
    with pytest.raises(InputError, match=r"the leakage audit failed: label_dependent_window \(side: \d+\)"):
        build_own(tmp_path, path)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT encounter_id, 1 AS label FROM encounters", "no column prediction_time; it gives encounter_id, "),
        (WEST.replace("'west'", "'west side'"),
         r"\d+ of 299 rows have no label or one that is none of the options; the options are east, west"),
        (WEST.replace("'west'", "NULL"), "have no label"),
        (WEST.replace("min(signed_time)", "NULLIF(min(signed_time), min(signed_time))"),
         "of 299 rows have no prediction_time"),
        (WEST + " HAVING false", "returns no rows; side would be empty"),
        (WEST + " UNION ALL " + WEST, "299 of 598 rows repeat an encounter; give one row an encounter"),
        (WEST.replace("stays.stay_id AS", "'x' || stays.stay_id AS"), "name an encounter that the records do not have"),
        (WEST.replace("min(signed_time) + INTERVAL 30 MINUTE", "min(signed_time)::VARCHAR"),
         "prediction_time is VARCHAR; give a timestamp"),
        ("SELECT enconter_id FROM stays", r'Binder Error: .*"enconter_id"'),
        ("SELECT * FROM main.facts", "table facts: not there; it may read patients, encounters"),
        ("SELECT text FROM notes", "Binder Error: .*text"),
        ("SELEC 1", "line 1: syntax error .*; the file holds one SELECT"),
        ("DROP TABLE stays", "the file holds one SELECT"),
        ("SELECT 1; SELECT 2", "2 statements; the file holds one SELECT"),
        ("COPY (SELECT 1) TO '/tmp/audit-leak.csv'", "the file holds one SELECT"),
        (WEST.replace("'east'", "CAST(any_value(encounters.department) AS INTEGER)::VARCHAR"),
         r"fails on some row \(ConversionException\)"),
    ],
)  # fmt: skip
def test_fault_of_the_sql_is_one_clear_line(tmp_path: Path, sql: str, said: str) -> None:
    given = hospital()
    for n in range(1, 60):
        given.stay(f"late{n}", "2019-01-01", "2019-01-03", f"late{n}", department="4 East")
    path = define(tmp_path / "own", sql)
    with pytest.raises(InputError, match=said) as caught:
        build_own(tmp_path, path, given=given)
    assert str(caught.value).startswith(f"{tmp_path}/own/side.sql: ")
    assert "\n" not in str(caught.value)
    assert "4 East" not in str(caught.value), "no value of a row"
    assert not list((tmp_path / "tasks").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "mortality"}, r"id: must be another than readmission, mortality"),
        ({"name": "audit"}, "id: must be another than"),
        ({"name": "ICU"}, "id: must be small letters, digits and _"),
        ({"options": ["yes"]}, "options: must be 2 to 26"),
        ({"options": ["yes", "yes"]}, "options: must be different from each other"),
        ({"options": [True, False]}, r"options.0: Input should be a valid string; write it in quotes"),
        ({"question": None}, "question: is missing"),
        ({"question": "two\nlines"}, "one line of text each"),
        ({"qestion": "?"}, "qestion: unknown key; known here: id, question, options, sql"),
        ({"file": "other.sql"}, r"sql: .*other.sql: no such file; it stands beside the YAML file"),
        ({"outcome": ["labels.icu"]}, "outcome: must be columns as table.column"),
    ],
)
def test_fault_of_the_yaml_is_told_before_anything_runs(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = define(tmp_path / "own", **changes)
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(None, [f'tasks.own=["{path}"]'], "tasks")
    assert "\n" not in str(caught.value)


def test_two_tasks_of_one_id_and_an_outcome_that_is_no_column_are_refused(tmp_path: Path) -> None:
    first, second = define(tmp_path / "a"), define(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"b/side.yaml: id: side is taken by another of tasks.own"):
        load_config(None, [f'tasks.own=["{first}", "{second}"]'], "tasks")
    with pytest.raises(
        InputError, match=r"side: outcome: encounters.ward: no such column; encounters has encounter_id"
    ):
        build_own(tmp_path / "c", define(tmp_path / "c", outcome=["encounters.ward"]))


def test_whole_recipe_knows_its_own_tasks_and_names_the_nearest(tmp_path: Path) -> None:
    path = define(tmp_path / "own")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"simulate": {}, "tasks": {"own": [path]}, "finetune": {"tasks": ["los", "side"]}}))
    assert load_config(recipe, []).finetune.tasks == ("los", "side")
    with pytest.raises(ConfigError, match=r"evaluate.tasks: sidde: no such task; did you mean side\?"):
        load_config(recipe, ["evaluate.tasks=[sidde]"])
    with pytest.raises(ConfigError, match=r"finetune.tasks: mortalty: no such task; did you mean mortality\?"):
        load_config(None, ["simulate.encounters=9", "finetune.tasks=[mortalty]"])


def test_icu_recipe_asks_before_the_move_and_not_of_who_is_there(tmp_path: Path) -> None:
    given = Hospital()
    moves = {"moved": "2020-01-03 08:00", "at once": "2020-01-01 09:00"}
    for n in range(60):
        given.stay(
            f"f{n}", f"2020-02-{1 + n % 28:02d} 08:00", f"2020-03-{1 + n % 28:02d} 08:00", f"f{n}", department="3 West"
        )
    for name in ("moved", "at once", "never"):
        given.stay(name, "2020-01-01 08:00", "2020-01-05 08:00", name, notes=False, department="3 West")
        given.note(name, "H&P", "2020-01-01 12:00", name)
        if name in moves:
            given.note(name, "progress", moves[name], name, written_time=moves[name], department="Main 9 MICU")
    for note in given.notes:
        if isinstance(note.get("written_time"), str):
            from timelines import at

            note["written_time"] = at(note["written_time"])
    built = build(given, tmp_path, config(own=(str(RECIPES / "icu_transfer.yaml"),), tasks=()), filled=False)
    labels = {
        r["encounter_id"]: r["label"] for r in built.rows("icu_transfer") if not r["encounter_id"].startswith("f")
    }
    assert labels == {"moved": 1, "never": 0}
    assert built.reasons("icu_transfer")["at once"] == "is returned by the task's SQL"


def test_sql_reads_no_text_and_nothing_of_it_stays_in_the_manifest(tmp_path: Path) -> None:
    built = build_own(tmp_path, define(tmp_path / "own"))
    manifest = (built.out / runs.MANIFEST).read_text()
    assert "3 West" not in manifest
    assert "own side sql" in json.loads(manifest)["inputs"]
