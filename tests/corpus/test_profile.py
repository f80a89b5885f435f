"""`profile`: tables that add up, figures from them, and no count of a few patients, nor one that a difference gives."""

from __future__ import annotations

import csv
import itertools
import random
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_records import file_hashes, note, prose, write_corpus

from lang1 import runs
from lang1.config import ProfileConfig
from lang1.corpus import profile, profile_pages
from lang1.corpus.profiling import Group, pool, quantile, read_titles
from lang1.ehr.schema import DIAGNOSES, ENCOUNTERS, PATIENTS
from lang1.errors import InputError

CFG = ProfileConfig(threads=1, memory_gb=0.5)
ALL = replace(CFG, suppress_below=0)
DEPARTMENTS = ["medicine", "surgery", "neurology", "obstetrics", "oncology", "icu", "urology"]
CODES = ["I50.9", "J18.9", "A41.9", "O80", "R07.9", "K92.2", "N39.0"]
BOROUGHS = ["Brooklyn", "Queens", "Manhattan", "Bronx", "Nassau", "Richmond"]


def rows() -> list[dict[str, Any]]:
    """600 notes of 200 patients: groups of falling size; one department, one type and one year of a few patients."""
    made = []
    for i in range(600):
        patient = i % 200
        department = DEPARTMENTS[min(patient * patient // 6000, 5)] if patient > 3 else DEPARTMENTS[6]
        year = 2015 if i == 5 else 2018 + i % 3
        made.append(
            note(
                i,
                prose(i, 12 + (i * i) % 300),
                patient_id=f"p{patient}",
                encounter_id=None if i % 10 == 9 else f"e{patient}",
                category=("radiology", "pathology", "hospital")[min(i % 4, 2)],
                note_type="consult" if i in (2, 6, 10) else "H&P" if i % 4 > 1 else ("radiology", "pathology")[i % 4],
                department=None if i % 7 == 0 else department,
                signed_time=datetime(year, 1, 1 + i % 28),
            )
        )
    return made


def write_tables(folder: Path) -> Path:
    patients = [
        {"patient_id": f"p{i}", "borough": BOROUGHS[min(i // 40, 5)] if i < 199 else "Richmond"} for i in range(200)
    ]
    stays = [
        {
            "encounter_id": f"e{i}",
            "patient_id": f"p{i}",
            "encounter_class": "inpatient",
            "primary_diagnosis": None if i % 2 else CODES[min(i // 30, 6)],
        }
        for i in range(200)
    ]
    codes = [
        {"patient_id": f"p{i}", "encounter_id": f"e{i}", "code": code, "position": position}
        for i in range(200)
        for position, code in ((1, CODES[min(i // 30, 6)]), (2, "Z00.0"))
    ]
    for name, made, schema in (
        ("patients", patients, PATIENTS),
        ("encounters", stays, ENCOUNTERS),
        ("diagnoses", codes, DIAGNOSES),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        full = [{field.name: row.get(field.name) for field in schema} for row in made]
        pq.write_table(pa.Table.from_pylist(full, schema=schema), folder / name / "part-00000.parquet")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("profile")
    corpus = write_corpus(root, rows())
    write_tables(root / "tables")
    profile(CFG, corpus=corpus, records=root / "tables", out=root / "shown", seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_pages, "draw_figures", lambda cfg, tables, out: None)
        profile(ALL, corpus=corpus, records=root / "tables", out=root / "all", seed=1)
    return root


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and one test looks at it."""
    monkeypatch.setattr(profile_pages, "draw_figures", lambda cfg, tables, out: None)


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as source:
        return list(csv.DictReader(source))


def patients_of(group: dict[str, Any]) -> int:
    return len({r["patient_id"] for r in rows() if all(r[key] == value for key, value in group.items())})


def test_the_top_lists_are_those_of_a_plain_count(made: Path) -> None:
    found = [row for row in table(made / "all", "top_departments") if row["category"] == "hospital"]
    hospital = [r for r in rows() if r["category"] == "hospital"]
    counts = Counter(r["department"] for r in hospital if r["department"])
    wanted = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:5]
    assert [(row["department"], int(row["notes"])) for row in found if row["rank"]] == wanted
    unspecified = sum(r["department"] is None for r in hospital)
    assert [int(r["notes"]) for r in found if r["department"] == "unspecified"] == [unspecified]
    first = found[0]
    assert float(first["share_of_specified"]) == round(wanted[0][1] / (len(hospital) - unspecified), 4)
    assert float(first["share_of_notes"]) == round(wanted[0][1] / len(hospital), 4)
    assert sum(int(row["notes"]) for row in found) == len(hospital)


def test_a_notes_diagnosis_is_the_main_one_of_its_stay_and_its_borough_the_patients(made: Path) -> None:
    diagnoses = [row for row in table(made / "all", "top_diagnoses") if row["category"] == "hospital"]
    hospital = [r for r in rows() if r["category"] == "hospital"]
    of_note = Counter(CODES[min(int(r["encounter_id"][1:]) // 30, 6)] for r in hospital if r["encounter_id"])
    listed = {row["diagnosis"]: int(row["notes"]) for row in diagnoses if row["rank"]}
    assert len(listed) == 5
    assert all(of_note[code] == notes for code, notes in listed.items())
    assert "Z00.0" not in listed
    boroughs = {
        r["borough"]: int(r["notes"]) for r in table(made / "all", "top_boroughs") if r["category"] == "hospital"
    }
    assert boroughs["Brooklyn"] == sum(int(r["patient_id"][1:]) < 40 for r in hospital)


def test_no_small_group_stands_alone_and_every_total_is_the_sum_of_what_is_shown(made: Path) -> None:
    totals = {row["category"]: int(row["notes"]) for row in table(made / "shown", "totals")}
    departments = table(made / "shown", "top_departments")
    for row in departments:
        if row["rank"]:
            assert patients_of({"category": row["category"], "department": row["department"]}) >= 11
    for category in ("hospital", "pathology", "radiology"):
        assert sum(int(r["notes"]) for r in departments if r["category"] == category) == totals[category]
    assert patients_of({"category": "hospital", "department": "urology"}) < 11
    years = table(made / "shown", "notes_by_year_and_type")
    assert "consult" not in {row["note_type"] for row in years}
    assert "2015" not in {row["year"] for row in years}
    assert sum(int(row["notes"]) for row in years) == totals["all"] == 600
    # a group that is large enough keeps the small ones company: another type, another year
    hidden = {(r["category"], r["note_type"]): int(r["notes"]) for r in years if r["year"] == "other"}
    small = [r for r in rows() if r["note_type"] == "consult"]
    assert hidden["hospital", "other"] > len(small)
    of_type = {(r["category"], r["note_type"]): int(r["notes"]) for r in table(made / "shown", "lengths")}
    for category, kind in of_type:
        mine = [r for r in years if (r["category"], r["note_type"]) == (category, kind)]
        assert kind == "all" or sum(int(r["notes"]) for r in mine) == of_type[category, kind]
    shown = "".join((made / "shown" / name).read_text() for name in ("profile.md", "lengths.csv", "top.svg"))
    assert "urology" not in shown and "consult" not in shown
    everything = table(made / "all", "notes_by_year_and_type")
    assert {"consult"} < {row["note_type"] for row in everything}
    assert "other" not in {row["year"] for row in everything}


def skewed_rows(seed: int) -> list[dict[str, Any]]:
    """Notes of 150 patients whose types, years, departments and boroughs are a few large groups and several small."""
    draw = random.Random(seed)

    def pick(names: list[str]) -> str:
        return names[min(int(draw.expovariate(0.9)), len(names) - 1)]

    return [
        note(
            i,
            prose(i, 12 + min(int(draw.expovariate(0.02)), 400)),
            patient_id=f"p{draw.randrange(150)}",
            encounter_id=f"e{i % 200}",
            category=("hospital", "radiology", "pathology")[min(int(draw.expovariate(1.4)), 2)],
            note_type=pick(["H&P", "consult", "discharge", "nursing", "social", "dental", "sleep"]),
            department=None if draw.random() < 0.02 * seed else pick(DEPARTMENTS),
            signed_time=datetime(2015 + int(pick(list("01234"))), 1, 1 + i % 28),
        )
        for i in range(700)
    ]


def published(folder: Path, notes: list[dict[str, Any]]) -> np.ndarray:
    """What each number in the tables is a sum of: a row a number, a column a note."""
    sets: list[list[bool]] = []
    categories = {row["category"] for row in table(folder, "totals")} - {"all"}
    sets += [[n["category"] == category for n in notes] for category in categories]
    kinds = {c: {r["note_type"] for r in table(folder, "lengths") if r["category"] == c} - {"all"} for c in categories}
    sets += [[(n["category"], n["note_type"]) == (c, kind) for n in notes] for c in categories for kind in kinds[c]]
    years = {(r["year"], r["category"], r["note_type"]) for r in table(folder, "notes_by_year_and_type")}
    for year, c, kind in years:
        mine = [n["category"] == c and (n["note_type"] == kind or kind == "other") for n in notes]
        if kind == "other":
            alone = {k for _, of, k in years if of == c}
            mine = [yes and n["note_type"] not in alone for yes, n in zip(mine, notes, strict=True)]
        elif year == "other":
            alone = {y for y, of, k in years if (of, k) == (c, kind)}
            mine = [yes and str(n["signed_time"].year) not in alone for yes, n in zip(mine, notes, strict=True)]
        else:
            mine = [yes and str(n["signed_time"].year) == year for yes, n in zip(mine, notes, strict=True)]
        sets.append(mine)
    for r in table(folder, "length_histogram"):
        low, high = int(r["words_from"]), int(r["words_below"])
        sets.append([n["category"] == r["category"] and low <= len(n["text"].split()) < high for n in notes])
    for name, key in (("top_departments", "department"), ("top_boroughs", "borough"), ("top_diagnoses", "diagnosis")):
        for c in categories:
            listed = [r for r in table(folder, name) if r["category"] == c]
            alone = {r[key] for r in listed}
            values = [(n["category"] == c, n[key] or "unspecified") for n in notes]
            for r in listed:
                is_rest = r[key] == "other"
                sets.append([yes and (v not in alone if is_rest else v == r[key]) for yes, v in values])
                if r["share_of_specified"]:  # a share and its part give the whole
                    sets.append([yes and v != "unspecified" for yes, v in values])
    return np.array(sets, dtype=float)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_no_sum_or_difference_of_any_tables_gives_a_small_group(seed: int, tmp_path: Path) -> None:
    notes = skewed_rows(seed)
    corpus, records = write_corpus(tmp_path, notes), write_tables(tmp_path / "tables")
    borough = {r["patient_id"]: r["borough"] for r in pq.read_table(records / "patients").to_pylist()}
    stays = {r["encounter_id"]: r["primary_diagnosis"] for r in pq.read_table(records / "encounters").to_pylist()}
    coded = {
        r["encounter_id"]: r["code"] for r in pq.read_table(records / "diagnoses").to_pylist() if r["position"] == 1
    }
    for n in notes:
        n["borough"], n["diagnosis"] = borough[n["patient_id"]], stays[n["encounter_id"]] or coded[n["encounter_id"]]
        n["year"] = n["signed_time"].year
    profile(CFG, corpus=corpus, records=records, out=tmp_path / "p", seed=1)
    profile(ALL, corpus=corpus, records=records, out=tmp_path / "all", seed=1)
    given_away = {name: given_groups(published(tmp_path / name, notes), notes) for name in ("p", "all")}
    assert given_away["p"] == []
    assert given_away["all"]  # the same look finds them where nothing is suppressed


def given_groups(sets: np.ndarray, notes: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Groups of fewer than 11 patients, and unions of such, that some sum of the published numbers equals.

    A sum with any factors: the projection on all of them leaves nothing of the group.
    """
    _, sizes, rows = np.linalg.svd(sets, full_matrices=False)
    basis = rows[sizes > 1e-9 * sizes[0]]
    keys = ("category", "note_type", "year", "department", "borough", "diagnosis")
    found = []
    for chosen in itertools.chain.from_iterable(itertools.combinations(keys, k) for k in (1, 2, 3)):
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, n in enumerate(notes):
            groups.setdefault(tuple(str(n[key]) for key in chosen), []).append(i)
        patients = {values: len({notes[i]["patient_id"] for i in members}) for values, members in groups.items()}
        for values in [values for values in groups if patients[values] < 11]:
            groups.setdefault((*values[:-1], "small"), []).extend(groups[values])
        for values, members in groups.items():
            if len({notes[i]["patient_id"] for i in members}) < 11:
                group = np.zeros(len(notes))
                group[members] = 1
                if np.linalg.norm(group - basis.T @ (basis @ group)) < 1e-6:
                    found.append(values)
    return found


def test_pooling_leaves_no_group_to_be_had_by_a_difference() -> None:
    groups = [Group(("a",), 100, 50), Group(("b",), 40, 20), Group(("c",), 3, 2), Group(("d",), 5, 5)]
    shown, pooled = pool(groups, 11)
    assert [g.key[0] for g in shown] == ["a"]
    assert {g.key[0] for g in pooled} == {"b", "c", "d"}
    assert pool(groups[:2], 11) == (groups[:2], [])
    assert pool(groups, 0) == (groups, [])
    assert pool(groups[2:], 11) == ([], groups[2:])
    assert [g.key[0] for g in pool(groups, 11, keep_pool=False)[0]] == ["a", "b"]


def test_notes_that_specify_nothing_keep_company_only_where_no_other_group_is_left() -> None:
    nothing, few = Group(("unspecified",), 20, 12), Group(("d",), 5, 5)
    shown, pooled = pool([Group(("a",), 100, 50), nothing, few], 11)
    assert (shown, {g.key[0] for g in pooled}) == ([nothing], {"a", "d"})
    assert pool([nothing, few], 11) == ([], [few, nothing])


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(("without", "hidden"), [(3, True), (15, False), (0, False)])
def test_shares_of_what_is_specified_are_shown_unless_they_give_the_rest(
    without: int, hidden: bool, tmp_path: Path
) -> None:
    made_of = [
        note(i, prose(i), patient_id=f"p{i}", department=None if i < without else DEPARTMENTS[i % 3]) for i in range(90)
    ]
    profile(CFG, corpus=write_corpus(tmp_path, made_of), records=None, out=tmp_path / "p", seed=1)
    found = table(tmp_path / "p", "top_departments")
    assert sum(int(row["notes"]) for row in found) == 90
    assert [int(row["notes"]) for row in found if row["department"] == "unspecified"] == [without] * (without > 11)
    for row in found:
        share = (
            "" if hidden or row["department"] == "unspecified" else str(round(int(row["notes"]) / (90 - without), 4))
        )
        assert row["share_of_specified"] == share


def test_the_figure_says_of_what_its_shares_are() -> None:
    shown = {"category": "hospital", "rank": "1", "department": "icu", "share_of_notes": 0.5}
    for share, said, bar in ((0.6, "% of the notes that specify it", 60.0), (None, "% of all notes", 50.0)):
        figure = profile_pages._draw_top(CFG, {"top_departments": [shown | {"share_of_specified": share}]})
        (axis,) = figure.axes
        assert axis.get_xlabel() == said
        assert axis.patches[0].get_width() == pytest.approx(bar)


def test_lengths_are_those_of_the_notes(made: Path) -> None:
    words = sorted(len(r["text"].split()) for r in rows() if r["category"] == "hospital")
    row = next(r for r in table(made / "all", "lengths") if r["category"] == "hospital" and r["note_type"] == "all")
    assert int(row["notes"]) == len(words)
    assert float(row["mean"]) == round(sum(words) / len(words), 1)
    for q in (5, 25, 50, 75, 95):
        below = sum(w <= int(row[f"p{q}"]) for w in words) / len(words)
        assert below >= q / 100 and sum(w < int(row[f"p{q}"]) for w in words) / len(words) < q / 100
    bins = [r for r in table(made / "all", "length_histogram") if r["category"] == "hospital"]
    for b in bins:
        assert int(b["notes"]) == sum(int(b["words_from"]) <= w < int(b["words_below"]) for w in words)
    assert sum(int(b["notes"]) for b in bins) == len(words)
    assert quantile([(1, 1), (2, 1), (9, 2)], 0.5) == 2


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("notes", "least", "shown"), [(20, 11, False), (219, 11, False), (220, 11, True), (20, 0, True)]
)
def test_the_ends_of_the_lengths_are_shown_where_enough_notes_lie_beyond(
    notes: int, least: int, shown: bool, tmp_path: Path
) -> None:
    made_of = [note(i, prose(i, 12 + i), patient_id=f"p{i}") for i in range(notes)]
    cfg = replace(CFG, suppress_below=least)
    profile(cfg, corpus=write_corpus(tmp_path, made_of), records=None, out=tmp_path / "p", seed=1)
    for row in table(tmp_path / "p", "lengths"):
        assert [row[name] != "" for name in ("p5", "p25", "p50", "p75", "p95")] == [shown, True, True, True, shown]
        assert row["p50"] == str(12 + (notes + 1) // 2 - 1)


@pytest.mark.usefixtures("no_figures")
def test_the_share_that_each_rule_touched_comes_from_the_corpus_manifest(made: Path, tmp_path: Path) -> None:
    rules = {r["name"]: r for r in table(made / "all", "cleaning") if r["kind"] == "rule"}
    counted = runs.read_manifest(made / "corpus")["facts"]["rules"]
    assert {name: int(row["notes"]) for name, row in rules.items()} == counted
    assert list(rules)[:4] == ["decode", "fields", "rtf", "html"]  # in the order in which they work
    texts = [
        *(prose(i) for i in range(60)),
        *(["too short"] * 20),
        *(["<p>" + prose(i) + "</p>" for i in range(3)]),
        None,
    ]
    corpus = write_corpus(tmp_path, [note(i, text, patient_id=f"p{i}") for i, text in enumerate(texts)])
    profile(CFG, corpus=corpus, records=None, out=tmp_path / "p", seed=1)
    found = {(r["kind"], r["name"]): r for r in table(tmp_path / "p", "cleaning")}
    assert (found["rule", "html"]["notes"], found["rule", "html"]["share_of_notes"]) == ("<11", "")
    assert ("rejected", "no_text") not in found  # one note: it goes with those that were too short
    assert found["rejected", "other"]["notes"] == "21"
    assert not (tmp_path / "p" / "top_boroughs.csv").exists()
    assert "No records were given" in (tmp_path / "p" / "profile.md").read_text()


def test_threads_memory_and_a_second_run_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    other = replace(CFG, threads=3, memory_gb=0.4)
    profile(other, corpus=made / "corpus", records=made / "tables", out=tmp_path / "again", seed=1)
    assert file_hashes(tmp_path / "again") == file_hashes(made / "shown")
    assert {"top.svg", "top.pdf", "notes_by_year.svg", "lengths.svg", "cleaning.svg", "profile.md"} <= set(
        file_hashes(made / "shown")
    )
    page = (made / "shown" / "profile.md").read_text()
    for figure in ("top.svg", "notes_by_year.svg", "lengths.svg", "cleaning.svg"):
        assert f"]({figure})" in page
    assert "p0" not in page.replace("p05", "") and prose(3)[:30] not in page


@pytest.mark.usefixtures("no_figures")
def test_titles_are_read_in_both_forms_and_stand_beside_their_codes(made: Path, tmp_path: Path) -> None:
    (tmp_path / "cms.txt").write_bytes("I509  Heart failure\nJ189  M\u00e9ni\u00e8re's pneumonia\n".encode("latin-1"))
    assert read_titles(tmp_path / "cms.txt") == {"I509": "Heart failure", "J189": "M\u00e9ni\u00e8re's pneumonia"}
    (tmp_path / "t.csv").write_text('code,title\nI50.9,"Heart failure, unspecified"\n')
    assert read_titles(tmp_path / "t.csv")["I509"] == "Heart failure, unspecified"
    cfg = replace(CFG, titles=str(tmp_path / "t.csv"))
    profile(cfg, corpus=made / "corpus", records=made / "tables", out=tmp_path / "p", seed=1)
    titled = {r["diagnosis"]: r["title"] for r in table(tmp_path / "p", "top_diagnoses") if r["rank"]}
    assert titled["I50.9"] == "Heart failure, unspecified"
    assert titled["J18.9"] == ""
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.txt: no line with a code and a title"):
        read_titles(tmp_path / "empty.txt")


@pytest.mark.parametrize(("few", "shown"), [(4, False), (15, True)])
def test_what_cleaning_counted_does_not_give_a_category_that_is_left_out(few: int, shown: bool, tmp_path: Path) -> None:
    made_of = [
        note(i, f"<p>{prose(i)}</p>", patient_id=f"p{i}", category="pathology" if i < few else "hospital")
        for i in range(60)
    ]
    profile(CFG, corpus=write_corpus(tmp_path, made_of), records=None, out=tmp_path / "p", seed=1)
    assert ("pathology" in {row["category"] for row in table(tmp_path / "p", "totals")}) is shown
    assert bool(table(tmp_path / "p", "cleaning")) is shown
    assert (tmp_path / "p" / "cleaning.svg").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_name_that_a_spreadsheet_would_run_is_set_off(tmp_path: Path) -> None:
    made_of = [note(i, prose(i), patient_id=f"p{i}", department="=HYPERLINK(1)") for i in range(20)]
    profile(CFG, corpus=write_corpus(tmp_path, made_of), records=None, out=tmp_path / "p", seed=1)
    assert table(tmp_path / "p", "top_departments")[0]["department"] == "'=HYPERLINK(1)"


def test_too_few_patients_and_broken_records_are_refused(made: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, [note(i, prose(i)) for i in range(12)])
    with pytest.raises(InputError, match="fewer than 11 patients"):
        profile(CFG, corpus=corpus, records=None, out=tmp_path / "p", seed=1)
    with pytest.raises(InputError, match="patients: no Parquet files"):
        profile(CFG, corpus=made / "corpus", records=corpus, out=tmp_path / "q", seed=1)
    (tmp_path / "t" / "patients").mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "t" / "patients" / "part-00000.parquet")
    with pytest.raises(InputError, match="patients: not readable as records"):
        profile(CFG, corpus=made / "corpus", records=tmp_path / "t", out=tmp_path / "r", seed=1)
