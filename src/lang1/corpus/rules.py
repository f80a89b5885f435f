"""The cleaning rules of section 5.1: named, ordered, pure functions from text to text, then the reasons to leave out.

Choices. Cleaned text is one line of printable ASCII with single spaces, as the paper removes "errant whitespace and
newlines". Where a plain removal would change what is said, the character is written out instead: a lost micro sign
turns 50 ug into 50 g, a lost >= turns a threshold into its number, 10 to the 9th into 109. Accents fall to their base
letter. "Concatenate narrative fields" is read as: what one note carries in several fields (a JSON object or list of
texts, parts divided by control characters) becomes one text in the order given, without the field's names and without
fields that hold only a placeholder; several rows a note are joined by the source's SQL, before the records.

Every rule is guarded by a cheap test, so a plain ASCII note costs little (docs/decisions/0011). Left out: spelling,
abbreviations, casing, de-identification. Thresholds: 10 words (5.1).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lang1.config import CleanConfig
from lang1.corpus.markup import is_placeholder, join_fields, join_surrogates, strip_html, strip_rtf

# --- malformed characters ----------------------------------------------------------------------------------------

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_BREAK = re.compile(r"(?:\\r\\n|\\n|\\r|\\t)(?![a-z])|\\\.br\\|_x000[dDaA]_")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def decode(raw: bytes) -> tuple[str, int | None]:
    """Bytes of a note as text; bytes that are not UTF-8 are read as Windows-1252.

    Also how many bytes mean nothing there either and are lost, or None when the note was UTF-8.
    """
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "surrogateescape")
        mended = _SURROGATE.sub(lambda m: bytes([ord(m.group()) - 0xDC00]).decode("cp1252", "ignore"), text)
        return mended, len(text) - len(mended)


def mend_encoding(text: str) -> str:
    """Mojibake undone where ftfy finds it, halves of characters joined, NUL removed, written-out line breaks read.

    ftfy's lossy options (quotes, ligatures, widths) are off: the next rules decide those themselves.
    """
    if "\x00" in text:
        text = text.replace("\x00", "")
    if "\\" in text or "_x000" in text:
        text = _ESCAPED_BREAK.sub("\n", text)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = join_surrogates(text)
    if not _is_mojibake(text):
        return text
    ftfy, settings = _ftfy()
    # ftfy mends line by line, and would spend most of its time on lines in which there is nothing to mend
    return "".join([
        line if line.isascii() and "\x1b" not in line else str(ftfy.fix_text(line, settings))
        for line in re.split("(?<=\n)", text)
    ])  # fmt: skip


_CONTEXT = 4
"""characters that ftfy's test looks at beside one that is not ASCII: two in ftfy 6.3"""
_ONLY_NOT_ASCII = b" " * 128 + bytes(range(128, 256))
_SUSPECT = frozenset("ÃÂŒœ") | frozenset(map(chr, range(0x80, 0xA0)))
"""characters that ftfy takes for mojibake alone; of all others it wants two in a row"""


def _is_mojibake(text: str) -> bool:
    """`ftfy.is_bad(text)` at a small part of its cost: it is asked only about the surroundings of suspects."""
    runs = text.encode().translate(_ONLY_NOT_ASCII).decode().split(" ")
    if all(len(run) <= 1 and run not in _SUSPECT for run in set(runs)):
        return False
    spans: list[list[int]] = []
    for match in _NOT_ASCII.finditer(text):
        start, stop = max(match.start() - _CONTEXT, 0), match.end() + _CONTEXT
        if spans and start <= spans[-1][1]:
            spans[-1][1] = stop
        else:
            spans.append([start, stop])
    return bool(_ftfy()[0].is_bad("\n".join([text[start:stop] for start, stop in spans])))


@cache
def _ftfy() -> tuple[Any, Any]:
    import ftfy

    return ftfy, ftfy.TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=True, fix_encoding=True, restore_byte_a0=True,
        replace_lossy_sequences=True, decode_inconsistent_utf8=True, fix_c1_controls=True,
        fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, fix_line_breaks=False,
        fix_surrogates=True, remove_control_chars=False, normalization=None, explain=False,
    )  # fmt: skip


# --- punctuation, formatting, ASCII ------------------------------------------------------------------------------


def _written_out() -> dict[str, str]:
    table = {
        "'": "‘’‚‛′´ʼʹ＇", '"': "“”„‟″«»‹›＂", "-": "‐‑‒–—―−﹘－⁃", " - ": "•‣●○◦▪▫■□∙⋅➢➤►▶✓✔☐☑❖◆◇➔",
        "...": "…", " ": "\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))),
        "": "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufffd®™©", "x": "×✕✖", "/": "÷⁄∕", "+/-": "±",
        "<=": "≤≦⩽", ">=": "≥≧⩾", "!=": "≠", "~": "≈∼˜", "->": "→⇒⟶", "<-": "←⇐", " up ": "↑⬆",
        " down ": "↓⬇", " deg ": "°º", "u": "µμ", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δΔ",
        "kappa": "κ", "lambda": "λ", "omega": "ω", "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø",
        "O": "Ø", "l": "ł", "L": "Ł", "GBP": "£", "EUR": "€", "inf": "∞", "\n": "\u2028\u2029\x85",
        "Section ": "§", "|": "│┃¦",
    }  # fmt: skip
    written = {char: ascii_form for ascii_form, chars in table.items() for char in chars}
    for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F)):  # 1½ is 1 1/2, not 11/2
        written[chr(code)] = " " + unicodedata.normalize("NFKD", chr(code)).replace("⁄", "/")
    return written


_WRITTEN_OUT = _written_out()
_ASCII = bytes(range(128))
_SUPER = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
_MIDDLE_DOT = re.compile(r"(?<=\d)·(?=\d)")
_SUPERSCRIPT = re.compile(f"[{_SUPER}]+")
_SUPER_DIGITS = str.maketrans(_SUPER, "0123456789+-")


def standardize_punctuation(text: str) -> str:
    """Quotes, dashes, bullets, ellipses and signs in their ASCII form."""
    if not text.isascii():
        if "·" in text:
            text = _MIDDLE_DOT.sub(".", text).replace("·", " - ")
        found = set(text.encode("utf-8", "replace").translate(None, _ASCII).decode())
        if not found.isdisjoint(_SUPER):
            text = _SUPERSCRIPT.sub(lambda m: "^" + m[0].translate(_SUPER_DIGITS), text)
        for char in found & _WRITTEN_OUT.keys():  # str.translate of a whole note takes ten times as long
            text = text.replace(char, _WRITTEN_OUT[char])
    return text.replace("``", '"').replace("`", "'") if "`" in text else text


_RULERS = tuple((char * 4, re.compile(re.escape(char) + "{4,}")) for char in "-_=*~#")
_DOTS = re.compile(r"\.{4,}")
_RULERS_ALIKE = bytes(ord("-") if char in b"-_=*~#." else char for char in range(256))


def standardize_formatting(text: str) -> str:
    """Ruled lines out; leaders to three dots."""
    if b"----" not in text.encode("utf-8", "replace").translate(_RULERS_ALIKE):  # one scan, not seven
        return text
    for ruler, pattern in _RULERS:
        if ruler in text:
            text = pattern.sub(" ", text)
    return _DOTS.sub("...", text) if "...." in text else text


def remove_non_ascii(text: str) -> str:
    """Accented letters to their base, every other character outside ASCII out."""
    return text if text.isascii() else _NOT_ASCII.sub("", unicodedata.normalize("NFKD", text))


_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]+")
_NOT_CONTROL = bytes(char for char in range(256) if not _CONTROL.match(chr(char)))


def remove_control(text: str) -> str:
    """Control characters out, but for those that are white space."""
    return _CONTROL.sub("", text) if text.encode("utf-8", "replace").translate(None, _NOT_CONTROL) else text


# --- white space -------------------------------------------------------------------------------------------------


_RARE_SPACES = "\x0b\x0c\x1c\x1d\x1e\x1f"


def standardize_whitespace(text: str) -> str:
    """One line, single spaces, none at the ends: `" ".join(text.split())`, several times faster on most notes."""
    if not text.isascii() or any(char in text for char in _RARE_SPACES):
        return " ".join(text.split())
    text = text.replace("\n", " ").replace("\r", " ").replace("\t", " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ")


_LOOSE = re.compile(r" [,;:!?.]")
_SPACE_BEFORE = re.compile(r" +([,;:!?.])(?= |$)")


def standardize_spacing(text: str) -> str:
    """No space before a punctuation mark that ends a word."""
    return _SPACE_BEFORE.sub(r"\1", text) if _LOOSE.search(text) else text


# --- all of them, in order -----------------------------------------------------------------------------------------

Step = tuple[str, Callable[[str], str]]
RULES: tuple[Step, ...] = (
    ("fields", join_fields),
    ("rtf", strip_rtf),
    ("html", strip_html),
    ("encoding", mend_encoding),
    ("punctuation", standardize_punctuation),
    ("formatting", standardize_formatting),
    ("non_ascii", remove_non_ascii),
    ("control", remove_control),
    ("whitespace", standardize_whitespace),
    ("spacing", standardize_spacing),
)
"""in this order; `clean.rules` and the counters of the manifest carry these names"""
PARSERS = ("fields", "rtf", "html", "encoding")
"""rules that call a parser which is not ours: a note on which it fails is rejected as `unreadable_<rule>`"""
FILTERS = ("no_text", "placeholder", "too_short")
"""reasons to leave a cleaned note out, in the order in which they are asked"""
NAMES = ("too_long", "decode", *(name for name, _ in RULES), *FILTERS)
"""every step in its order: `too_long` looks at the bytes, `decode` reads them"""
REASONS = ("too_long", "unknown_category", *FILTERS, "unreadable_decode", *(f"unreadable_{name}" for name in PARSERS))
"""why a note is left out"""


class RuleError(Exception):
    """A rule failed on a note. Carries the rule and the kind of failure, never the text."""

    def __init__(self, rule: str, kind: str) -> None:
        super().__init__(rule, kind)
        self.rule = rule
        self.kind = kind


@dataclass(frozen=True)
class Steps:
    """The steps that a configuration leaves on, and their thresholds. Built once a partition."""

    names: frozenset[str]
    rules: tuple[Step, ...]
    min_words: int
    max_bytes: int


def chosen_steps(cfg: CleanConfig) -> Steps:
    """The steps of a configuration, in their order."""
    names = frozenset(name for name in NAMES if getattr(cfg.rules, name))
    return Steps(names, tuple(rule for rule in RULES if rule[0] in names), cfg.min_words, round(cfg.max_note_mb * 1e6))


@dataclass
class Tally:
    """For each step the notes that it changed or left out, and the characters that it took away and added."""

    notes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    removed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    added: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))

    def add(self, name: str, removed: int) -> None:
        """One note changed by a step; `removed` is negative where the note became longer."""
        self.notes[name] += 1
        (self.removed if removed > 0 else self.added)[name] += abs(removed)


def clean_note(raw: bytes | None, steps: Steps, tally: Tally) -> tuple[str, str | None]:
    """A note's cleaned text, and the reason to leave it out or None. Raises RuleError when a rule of ours fails."""
    if raw is None:
        raw = b""
    if len(raw) > steps.max_bytes and "too_long" in steps.names:
        tally.add("too_long", len(raw))
        return "", "too_long"
    text, lost = decode(raw)
    if lost is not None:
        if "decode" not in steps.names:
            return "", "unreadable_decode"
        tally.add("decode", lost)
    try:
        text = apply_rules(text, steps.rules, tally)
    except RuleError as error:
        if error.rule in PARSERS:
            return "", f"unreadable_{error.rule}"
        raise
    if not text.isascii():
        text = join_surrogates(text)  # with `encoding` or `non_ascii` left out: a file holds whole characters
    reason = reason_to_leave_out(text, steps)
    if reason is not None:
        tally.add(reason, len(text))
    return text, reason


def apply_rules(text: str, rules: tuple[Step, ...], tally: Tally) -> str:
    """Every rule in order; counts in `tally` those that changed the text. Raises RuleError."""
    name = ""
    try:
        for name, rule in rules:
            after = rule(text)
            if after is not text and after != text:
                tally.add(name, len(text) - len(after))
                text = after
    except MemoryError:
        raise
    except Exception as error:
        raise RuleError(name, type(error).__name__) from None
    return text


def reason_to_leave_out(text: str, steps: Steps) -> str | None:
    """Why a cleaned note is left out, or None."""
    if not text or text.isspace():
        return "no_text" if "no_text" in steps.names else None
    if "placeholder" in steps.names and is_placeholder(text):
        return "placeholder"
    if "too_short" in steps.names and len(text.split(None, steps.min_words)) < steps.min_words:
        return "too_short"
    return None


def count_words(text: str, steps: Steps) -> int:
    """Words of a cleaned text: runs between white space, which is single spaces where that step is on."""
    if "whitespace" in steps.names:
        return text.count(" ") + 1 if text else 0
    return len(text.split())
