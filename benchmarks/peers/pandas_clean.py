"""The plain way that the paper names (5.1): Dask DataFrame over CSV, and a chain of pandas `.str.replace`.

The same rules as `lang1.corpus.rules`, written as a careful user of pandas writes them: Arrow strings, one expression
for all characters that have the same replacement, the parsers only on the notes that need one, both tables in one
pass. A note holds line breaks, so that `read_csv` must take a file whole (`blocksize=None`). The parsers are the same
libraries, called as their pages say; JSON fields and HTML are lang1's own functions, which are plain.
tests/corpus/test_clean_peer.py proves that any text comes out the same.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import ftfy
import pandas as pd
from striprtf.striprtf import rtf_to_text

from lang1.corpus.markup import join_fields, strip_html

MIN_WORDS = 10
NEEDS_PARSER = r"[{\[\\<&\x00\x07\x0b\x0c\x1c-\x1f]|_x000|[^\x00-\x7f]"
ESCAPED_BREAK = re.compile(r"(?:\\r\\n|\\n|\\r|\\t)(?![a-z])|\\\.br\\|_x000[dDaA]_")
CELL = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:nest)?(?:cell|row)(?![a-z0-9-])")
FTFY = ftfy.TextFixerConfig(
    unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False,
    fix_line_breaks=False, remove_control_chars=False, normalization=None, explain=False,
)  # fmt: skip
SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
WRITTEN_OUT = {
    "[‘’‚‛′´ʼʹ＇]": "'", "[“”„‟″«»‹›＂]": '"', "[‐‑‒–—―−﹘－⁃]": "-", "[•‣●○◦▪▫■□∙⋅➢➤►▶✓✔☐☑❖◆◇➔·]": " - ",
    "…": "...", "[\u00a0\u1680\u202f\u205f\u3000\u2000-\u200a]": " ",
    "[\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufffd®™©]": "", "[×✕✖]": "x", "[÷⁄∕]": "/", "±": "+/-",
    "[≤≦⩽]": "<=", "[≥≧⩾]": ">=", "≠": "!=", "[≈∼˜]": "~", "[→⇒⟶]": "->", "[←⇐]": "<-", "[↑⬆]": " up ",
    "[↓⬇]": " down ", "[°º]": " deg ", "[µμ]": "u", "α": "alpha", "β": "beta", "γ": "gamma", "[δΔ]": "delta",
    "κ": "kappa", "λ": "lambda", "ω": "omega", "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o",
    "Ø": "O", "ł": "l", "Ł": "L", "£": "GBP", "€": "EUR", "∞": "inf", "[\u2028\u2029\x85]": "\n", "§": "Section ",
    "[│┃¦]": "|",
}  # fmt: skip
FRACTIONS = {chr(code): " " + unicodedata.normalize("NFKD", chr(code)).replace("⁄", "/")
             for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))}  # fmt: skip
PLACEHOLDER = (
    r"(?i)(?:[\s\[\]().,;:|/*#_\"'-]*"
    r"<?(?:na|n/a|nan|nat|null|none|nil|blank|empty|missing|not available|no text|not applicable)>?(?![a-z0-9]))+"
    r"[\s\[\]().,;:|/*#_\"'-]*"
)


def parsed(text: str) -> str | None:
    """Fields, RTF, HTML and broken encodings of one note; null when a parser fails."""
    try:
        text = join_fields(text)
        start = text.find("{\\rtf")
        if start >= 0:
            text = text[:start] + whole(rtf_to_text(CELL.sub(r"\1\\tab ", text[start:]), errors="ignore"))
        text = ESCAPED_BREAK.sub("\n", strip_html(text).replace("\x00", ""))
        text = whole(text)
        return ftfy.fix_text(text, FTFY) if not text.isascii() and ftfy.is_bad(text) else text
    except Exception:
        return None


def whole(text: str) -> str:
    """Halves of characters joined; a lone one becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean_text(text: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Cleaned text, and whether a parser failed, for a series of strings without nulls."""
    messy = text.str.contains(NEEDS_PARSER, regex=True)
    mended = text[messy].map(parsed)
    failed = pd.Series(False, index=text.index)
    failed[messy] = mended.isna()
    text = text.copy()
    text[messy] = mended.fillna("")
    text = text.str.replace(r"(?<=\d)·(?=\d)", ".", regex=True)
    text = text.str.replace(f"([{SUPERSCRIPTS}]+)", r"^\1", regex=True)
    for char, plain in zip(SUPERSCRIPTS, "0123456789+-", strict=True):
        text = text.str.replace(char, plain, regex=False)
    for pattern, plain in WRITTEN_OUT.items():
        text = text.str.replace(pattern, plain, regex=True)
    for char, plain in FRACTIONS.items():
        text = text.str.replace(char, plain, regex=False)
    text = text.str.replace("``", '"', regex=False).str.replace("`", "'", regex=False)
    text = text.str.replace(r"-{4,}|_{4,}|={4,}|\*{4,}|~{4,}|#{4,}", " ", regex=True)
    text = text.str.replace(r"\.{4,}", "...", regex=True)
    text = text.str.normalize("NFKD").str.replace(r"[^\x00-\x7f]+", "", regex=True)
    text = text.str.replace(r"[\x00-\x08\x0e-\x1b\x7f]+", "", regex=True)
    text = text.str.replace(r"[\s\x0b\x1c-\x1f]+", " ", regex=True).str.strip(" ")
    # what follows the mark is a space or the end; RE2 has no lookahead, and marks may follow each other
    return text.str.replace(r" +([,;:!?.])(?= |$)", r"\1", regex=True), failed


def reasons(text: pd.Series, failed: pd.Series) -> pd.Series:
    """Why a note is left out, or null. A failed parser is `unreadable` here, whichever it was."""
    reason = pd.Series(None, index=text.index, dtype="str")
    words = text.str.count(" ") + 1
    reason[words < MIN_WORDS] = "too_short"
    reason[~text.str.contains("[a-zA-Z0-9]", regex=True) | text.str.fullmatch(PLACEHOLDER)] = "placeholder"
    reason[text == ""] = "no_text"
    reason[failed] = "unreadable"
    return reason


def clean_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The notes with `original`, cleaned `text`, `words`, `note_hash` and `reason`."""
    frame = frame.rename(columns={"text": "original"})
    text, failed = clean_text(frame["original"].fillna(""))
    frame["text"] = text
    frame["words"] = (text.str.count(" ") + 1).astype("int32")
    frame["note_hash"] = text.map(lambda one: hashlib.sha256(one.encode()).hexdigest()[:32])
    frame["reason"] = reasons(text, failed)
    return frame


def clean_csv(files: list[Path], out: Path, workers: int) -> None:
    """Read, clean, write kept and rejected notes as Parquet, on `workers` local processes."""
    import dask
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    dask.config.set({"dataframe.convert-string": True})
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=None
    ) as cluster, Client(cluster):  # fmt: skip
        raw: Any = dd.read_csv(
            [str(path) for path in files], blocksize=None, dtype="str", keep_default_na=False, na_values=[""]
        )
        for column in ("written_time", "signed_time"):
            raw[column] = dd.to_datetime(raw[column])
        notes = raw.map_partitions(clean_frame)
        kept = notes[notes["reason"].isna()].drop(columns=["original", "reason"])
        left = notes[~notes["reason"].isna()][["note_id", "patient_id", "encounter_id", "reason", "original"]]
        dask.compute(*(
            table.to_parquet(out / name, compute=False, compression="zstd", write_index=False)
            for name, table in (("notes", kept), ("rejects", left.rename(columns={"original": "text"})))
        ))  # fmt: skip


if __name__ == "__main__":
    clean_csv([Path(name) for name in sys.argv[3:]], Path(sys.argv[1]), int(sys.argv[2]))
