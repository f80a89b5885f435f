"""The notes: kinds, lengths, markup, damage, drift; what the configuration lengthens; facts first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
from striprtf.striprtf import rtf_to_text
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lang1.config import SimulateConfig
from lang1.simulate import simulate_hospital
from lang1.simulate.styles import STYLES, style_of
from lang1.simulate.tables import FRAMES
from lang1.simulate.writing import words_of

PLAIN = "note_text NOT LIKE '{\\rtf%' AND note_text NOT LIKE '<html%' AND length(note_text) > 40"


def test_about_four_notes_an_encounter_of_five_kinds(warehouse: Any) -> None:
    stays = warehouse.execute("SELECT count(*) FROM visit_occurrence WHERE visit_concept_id = 9201").fetchone()[0]
    kinds = dict(warehouse.execute("SELECT note_title, count(*) FROM note GROUP BY 1").fetchall())
    assert set(kinds) == {"H&P", "discharge summary", "progress", "radiology", "pathology"}
    assert 3.7 < sum(kinds.values()) / stays < 4.6
    assert kinds["H&P"] / stays > 0.94
    assert kinds["discharge summary"] / stays > 0.93


def test_the_median_note_is_short_with_a_long_tail(warehouse: Any) -> None:
    texts = [text for (text,) in warehouse.execute(f"SELECT note_text FROM note WHERE {PLAIN}").fetchall()]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=4000, show_progress=False))
    lengths = sorted(len(encoding.ids) for encoding in bpe.encode_batch(texts))
    assert lengths[len(lengths) // 2] <= 150
    assert lengths[int(len(lengths) * 0.985)] > 3 * lengths[len(lengths) // 2]
    words = sum(len(text.split()) for text in texts)
    assert sum(lengths) / words < 1.6


def test_the_median_hp_and_discharge_summary_hold_within_150_tokens(warehouse: Any) -> None:
    for kind in ("H&P", "discharge summary"):
        words = warehouse.execute(
            f"SELECT median(len(string_split_regex(trim(note_text), '\\s+'))) FROM note "
            f"WHERE {PLAIN} AND note_title = ?", [kind]
        ).fetchone()[0]  # fmt: skip
        assert 65 < words < 90


def test_markup_and_damage_have_their_shares(warehouse: Any) -> None:
    rtf, html, short = warehouse.execute(
        "SELECT avg((note_text LIKE '{\\rtf%')::INT), avg((note_text LIKE '<html%')::INT), "
        "avg((len(string_split_regex(trim(note_text), '\\s+')) < 10)::INT) FROM note"
    ).fetchone()
    assert rtf == pytest.approx(0.06, abs=0.01)
    assert html == pytest.approx(0.06, abs=0.01)
    assert 0.004 < short < 0.02
    assert warehouse.execute("SELECT count(*) FROM note WHERE note_text = '<NA>'").fetchone()[0] > 10
    foreign = warehouse.execute("SELECT avg((NOT regexp_full_match(note_text, '[\\x00-\\x7f]*'))::INT) FROM note")
    assert 0.02 < foreign.fetchone()[0] < 0.08


def test_rtf_notes_read_back(warehouse: Any) -> None:
    rows = warehouse.execute(
        "SELECT note_text FROM note WHERE note_text LIKE '{\\rtf%' AND note_title = 'H&P' LIMIT 20"
    )
    for (text,) in rows.fetchall():
        plain = rtf_to_text(text)
        assert "\\par" not in plain and len(plain.split()) > 30


def test_templates_change_with_the_years(warehouse: Any) -> None:
    first, last = warehouse.execute(
        "SELECT avg((note_text LIKE '%# Presenting%')::INT) FILTER (year(note_date) < 2021), "
        "avg((note_text LIKE '%# Presenting%')::INT) FILTER (year(note_date) >= 2021) "
        "FROM note WHERE note_title = 'H&P'"
    ).fetchone()
    assert first == 0
    assert 0.15 < last < 0.6
    covid = warehouse.execute("SELECT min(year(note_date)) FROM note WHERE note_text ILIKE '%covid%'").fetchone()
    assert covid == (2020,)


def test_note_length_adds_text_after_the_facts(tmp_path: Path) -> None:
    texts = []
    for name, length in (("short", 1.0), ("long", 6.0)):
        cfg = SimulateConfig(encounters=150, workers=1, note_length=length)
        simulate_hospital(cfg, seed=2, out=tmp_path / name)
        with duckdb.connect(str(tmp_path / name / "warehouse.duckdb"), read_only=True) as connection:
            wanted = f"SELECT visit_occurrence_id, note_text FROM note WHERE note_title = 'H&P' AND {PLAIN}"
            texts.append(dict(connection.execute(wanted).fetchall()))
    both = sorted(texts[0].keys() & texts[1].keys())
    assert len(both) > 80
    ratios = [len(texts[1][note].split()) / len(texts[0][note].split()) for note in both]
    assert sorted(ratios)[len(ratios) // 2] > 4
    for note in both[:50]:
        body = texts[0][note].split("Review of systems")[0].split("\n")[:-1]
        assert texts[1][note].startswith("\n".join(body)) or note_has_typo(texts[0][note], texts[1][note])


def note_has_typo(one: str, other: str) -> bool:
    """A typo or an accent was drawn after the longer tail used up random numbers: the words are the same but for it."""
    a, b = one.split()[:60], other.split()[:60]
    return sum(x != y for x, y in zip(a, b, strict=False)) <= 12


def test_frames_have_the_same_words_either_way() -> None:
    for pairs in FRAMES.values():
        for there, absent in pairs:
            said = [sentence.replace(",", "").split() for sentence in (there, absent)]
            assert sorted(said[0]) == sorted(said[1])
            assert said[0] != said[1]


def test_every_provider_has_a_style_in_every_year() -> None:
    for hospital in ("main", "external"):
        for year in range(2011, 2025):
            assert {style_of(hospital, place / 100, year) in STYLES for place in range(100)} == {True}


def test_the_external_hospital_has_words_of_its_own() -> None:
    main, external = words_of("main"), words_of("external")
    ours, theirs = main.findings + main.discharge, external.findings + external.discharge
    changed = sum(a.said != b.said for a, b in zip(ours, theirs, strict=True))
    assert 10 < changed < len(ours)
