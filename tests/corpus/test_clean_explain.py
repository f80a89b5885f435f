"""`lang1 clean --explain`: a note after each step, to a terminal, without reading a table or writing anything."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpus_records import note, prose, write_records

from lang1.config import CleanConfig
from lang1.config.data import CleanRulesConfig
from lang1.corpus import explain, explain_cleaning, rules
from lang1.errors import InputError

LANG1 = Path(sys.executable).with_name("lang1")
TEXT = r"{\rtf1 Pt  with \b pain\b0  , 50 \'b5g given and seen again by the whole team today\par}"


def records_of(folder: Path, count: int = 300) -> Path:
    rows = [note(i, TEXT if i == 150 else prose(i)) | {"note_id": f"n{i:05d}"} for i in range(count)]
    return write_records(folder, rows, files=2, row_group=20)


def test_every_step_is_shown_with_what_it_made_of_the_note(tmp_path: Path) -> None:
    shown = explain.explain(CleanConfig(), "n00150", records=records_of(tmp_path))
    assert [one.step for one in shown] == ["as it came", "decode", *(name for name, _ in rules.RULES), "kept"]
    changed = {one.step: one.text for one in shown if one.changed}
    assert list(changed) == ["rtf", "punctuation", "whitespace", "spacing"]
    assert changed["rtf"].startswith("Pt  with pain , 50 \u00b5g given")
    assert changed["spacing"] == "Pt with pain, 50 ug given and seen again by the whole team today"


def test_a_step_that_is_off_is_not_shown_and_a_reject_says_why(tmp_path: Path) -> None:
    cfg = CleanConfig(rules=CleanRulesConfig(rtf=False), min_words=99)
    shown = explain.explain(cfg, "n00150", records=records_of(tmp_path))
    assert "rtf" not in [one.step for one in shown]
    assert shown[-1].step == "rejected: too_short"
    assert (
        explain.explain_note(CleanConfig(), b"{\\rtf1 \\u1114112 x}", "hospital")[-1].step == "rejected: unreadable_rtf"
    )
    assert explain.explain_note(CleanConfig(), b"caf\xe9", "hospital")[0].text == "caf\\xe9"


def test_what_could_steer_a_terminal_is_written_out() -> None:
    said = "\n".join(explain.lines(explain.explain_note(CleanConfig(), b"a\x1b[31mred\x07\r\nb", "hospital")))
    assert "  | a\\x1b[31mred\\x07\\r\n  | b" in said
    assert all(char == "\n" or char.isprintable() for char in said)


def test_only_the_row_group_that_holds_the_note_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    records, read = records_of(tmp_path), []
    before = pq.ParquetFile.iter_batches

    def watched(self: Any, size: int, groups: list[int], columns: list[str], **rest: Any) -> Any:
        read.append((groups, columns == ["note_id"]))
        return before(self, size, groups, columns, **rest)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    explain.explain(CleanConfig(), "n00150", records=records)
    assert read == [([0], True), ([0], False)]  # 150 is the first of the second file
    with pytest.raises(InputError, match="no note n9"):
        explain.explain(CleanConfig(), "n9", records=records)


def test_a_csv_and_a_foreign_parquet_are_searched_too(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text(f'note_id,patient_id,text\n1,1,"{prose(1)}\n"\n2,1,"two\nlines"\n')
    assert explain_cleaning(CleanConfig(), "2", notes=tmp_path / "n.csv")[:3] == ["as it came", "  | two", "  | lines"]
    table = pq.read_table(records_of(tmp_path) / "notes" / "part-00000.parquet")
    pq.write_table(table, tmp_path / "n.parquet")
    assert explain_cleaning(CleanConfig(), "n00003", notes=tmp_path / "n.parquet")[0] == "as it came"


def test_the_command_speaks_to_a_terminal_alone(tmp_path: Path) -> None:
    command = [str(LANG1), "clean", "--records", str(records_of(tmp_path / "r")), "--explain", "n00150"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "lang1: --explain prints note text, and only to a terminal; --allow-phi prints it anyway\n"
    allowed = subprocess.run([*command, "--allow-phi"], capture_output=True, text=True)
    assert allowed.returncode == 0 and "spacing: changed" in allowed.stdout
    theirs, ours = pty.openpty()
    with subprocess.Popen(command, stdout=ours, stderr=subprocess.PIPE) as process:
        os.close(ours)
        seen = b""
        while chunk := _read(theirs):
            seen += chunk
    os.close(theirs)
    assert process.returncode == 0
    assert seen.decode().replace("\r\n", "\n") == allowed.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r"]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""
