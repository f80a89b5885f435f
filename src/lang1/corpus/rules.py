"""The cleaning rules of section 5.1: named, ordered, pure functions from text to text, then the reasons to leave out.

Choices. Cleaned text is one line of printable ASCII with single spaces, as the paper removes "errant whitespace and
newlines". Where a plain removal would change what is said, the character is written out instead: a lost micro sign
turns 50 ug into 50 g, a lost >= turns a threshold into its number, 10 to the 9th into 109. Accents fall to their base
letter. "Concatenate narrative fields" is read as: what one note carries in several fields (a JSON object or list of
texts, parts divided by control characters) becomes one text in the order given, without the field's names and without
fields that hold only a placeholder; several rows a note are joined by the source's SQL, before the records.

Every rule is guarded by a cheap test, so a plain ASCII note costs little. Left out: spelling, abbreviations, casing,
de-identification. Thresholds: 10 words (5.1).
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

# --- fields ----------------------------------------------------------------------------------------------------

_SEPARATORS = "\x07\x0b\x0c\x1c\x1d\x1e\x1f"
_FIELD = re.compile(f"[{_SEPARATORS}]+")
_PLACEHOLDER = r"<?(?:na|n/a|nan|nat|null|none|nil|blank|empty|missing|not available|no text|not applicable)>?"
_AROUND = r"[\s\[\]().,;:|/*#_\"'-]*"
_ONLY_PLACEHOLDERS = re.compile(rf"(?:{_AROUND}{_PLACEHOLDER}(?![a-z0-9]))+{_AROUND}", re.I)


def is_placeholder(text: str) -> bool:
    """True when nothing but `<NA>` and its kin, or no letter and no digit at all, stands in the text."""
    return not any(c.isalnum() for c in text) or _ONLY_PLACEHOLDERS.fullmatch(text) is not None


def join_fields(text: str) -> str:
    """Concatenate what a note carries in several fields."""
    parts = _json_fields(text) if text.lstrip()[:1] in ("{", "[") else None
    if parts is None:
        if not any(char in text for char in _SEPARATORS):  # seven memchr: ten times faster than a regex scan
            return text
        parts = _FIELD.split(text)
    return "\n".join(part.strip() for part in parts if part.strip() and not is_placeholder(part))


def _json_fields(text: str) -> list[str] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return list(_iter_strings(value)) if isinstance(value, dict | list) else None


def _iter_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _iter_strings(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


# --- markup ----------------------------------------------------------------------------------------------------

_CELL = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:nest)?(?:cell|row)(?![a-z0-9-])")
_TAG = re.compile(
    r"<(?:!doctype\b|!--|/?(?:html|head|body|div|span|p|br|hr|h[1-6]|ul|ol|li|dl|dt|dd|table|tbody|thead|tr|td|th|b|i|u"
    r"|em|strong|small|sub|sup|font|center|a|img|pre|blockquote|section|article|style|script|meta)(?:\s[^<>]*)?/?>)",
    re.I,
)
_BLOCK = re.compile(r"(?=</?(?:div|p|br|hr|h[1-6]|ul|ol|li|dl|dt|dd|table|tr|td|th|pre|blockquote)\b)", re.I)
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")


def strip_rtf(text: str) -> str:
    """RTF to plain text; what stands before it is kept; cells of a table become spaces, not bars."""
    start = text.find("{\\rtf")
    if start < 0:
        return text
    from striprtf.striprtf import rtf_to_text

    source = _CELL.sub(r"\1\\tab ", text[start:])
    plain = str(rtf_to_text(source, errors="ignore"))
    return text[:start] + _join_surrogates(plain)


def _join_surrogates(text: str) -> str:
    """Halves of a character, as RTF writes those beyond 16 bits, joined; a lone half becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def strip_html(text: str) -> str:
    """Known HTML tags out, entities decoded. `BP <120` and `<NA>` are no tags."""
    if "<" in text and _TAG.search(text):
        from selectolax.lexbor import LexborHTMLParser

        tree = LexborHTMLParser(_BLOCK.sub("\n", text))
        tree.strip_tags(["script", "style", "head"])
        body = tree.body
        return body.text(separator="", deep=True) if body is not None else ""
    if "&" in text and _ENTITY.search(text):
        return html.unescape(text)
    return text


# --- characters ------------------------------------------------------------------------------------------------

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_BREAK = re.compile(r"(?:\\r\\n|\\n|\\r|\\t)(?![a-z])|\\\.br\\|_x000[dDaA]_")


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
    if _SURROGATE.search(text):
        text = _join_surrogates(text)
    ftfy, settings = _ftfy()
    return str(ftfy.fix_text(text, settings)) if ftfy.is_bad(text) else text


@cache
def _ftfy() -> tuple[Any, Any]:
    import ftfy

    return ftfy, ftfy.TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=True, fix_encoding=True, restore_byte_a0=True,
        replace_lossy_sequences=True, decode_inconsistent_utf8=True, fix_c1_controls=True,
        fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, fix_line_breaks=False,
        fix_surrogates=True, remove_control_chars=False, normalization=None, explain=False,
    )  # fmt: skip


def _written_out() -> dict[int, str]:
    table = {
        "'": "‘’‚‛′´`ʼʹ＇", '"': "“”„‟″«»‹›＂", "-": "‐‑‒–—―−﹘－⁃", " - ": "•‣●○◦▪▫■□∙⋅➢➤►▶✓✔☐☑❖◆◇➔",
        "...": "…", " ": "\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))),
        "": "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufffd®™©", "x": "×✕✖", "/": "÷⁄∕", "+/-": "±",
        "<=": "≤≦⩽", ">=": "≥≧⩾", "!=": "≠", "~": "≈∼˜", "->": "→⇒⟶", "<-": "←⇐", " up ": "↑⬆",
        " down ": "↓⬇", " deg ": "°º", "u": "µμ", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δΔ",
        "kappa": "κ", "lambda": "λ", "omega": "ω", "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø",
        "O": "Ø", "l": "ł", "L": "Ł", "GBP": "£", "EUR": "€", "inf": "∞", "\n": "\u2028\u2029\x85",
        "Section ": "§", "|": "│┃¦",
    }  # fmt: skip
    written = {ord(char): ascii_form for ascii_form, chars in table.items() for char in chars}
    for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F)):  # 1½ is 1 1/2, not 11/2
        written[code] = " " + unicodedata.normalize("NFKD", chr(code)).replace("⁄", "/")
    return written


_WRITTEN_OUT = _written_out()
_MIDDLE_DOT = re.compile(r"(?<=\d)·(?=\d)")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_SUPER_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_RULERS = ("----", "____", "====", "****", "~~~~", "####", "....")
_RULER = re.compile(r"-{4,}|_{4,}|={4,}|\*{4,}|~{4,}|#{4,}")
_DOTS = re.compile(r"\.{4,}")


def standardize_punctuation(text: str) -> str:
    """Quotes, dashes, bullets, ellipses and signs in their ASCII form; ruled lines out; leaders to three dots."""
    if not text.isascii():
        text = _MIDDLE_DOT.sub(".", text).replace("·", " - ")
        text = _SUPERSCRIPT.sub(lambda m: "^" + m.group().translate(_SUPER_DIGITS), text).translate(_WRITTEN_OUT)
    if "`" in text:
        text = text.replace("``", '"').replace("`", "'")
    if any(ruler in text for ruler in _RULERS):
        text = _DOTS.sub("...", _RULER.sub(" ", text))
    return text


_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]+")


def remove_non_ascii(text: str) -> str:
    """Accented letters to their base, every other character outside printable ASCII out."""
    if not text.isascii():
        text = _NOT_ASCII.sub("", unicodedata.normalize("NFKD", text))
    return text if text.replace("\n", "").isprintable() else _CONTROL.sub("", text)


_SPACE_BEFORE = re.compile(r" +([,;:!?.])(?= |$)")
_LOOSE = (" ,", " ;", " :", " !", " ?", " .")


def standardize_spacing(text: str) -> str:
    """One line, single spaces, none at the ends, none before a punctuation mark that ends a word."""
    text = " ".join(text.split())  # the same as the regex \s+ on ASCII, several times faster
    if any(mark in text for mark in _LOOSE):
        text = _SPACE_BEFORE.sub(r"\1", text)
    return text


RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("fields", join_fields),
    ("rtf", strip_rtf),
    ("html", strip_html),
    ("encoding", mend_encoding),
    ("punctuation", standardize_punctuation),
    ("non_ascii", remove_non_ascii),
    ("spacing", standardize_spacing),
)
"""in this order; the counters of the manifest carry these names"""
PARSERS = ("fields", "rtf", "html", "encoding")
"""rules that call a parser which is not ours: a note on which it fails is rejected as `unreadable_<rule>`"""
REASONS = ("no_text", "placeholder", "too_short", *(f"unreadable_{name}" for name in PARSERS))
"""why a note is left out"""


class RuleError(Exception):
    """A rule failed on a note. Carries the rule and the kind of failure, never the text."""

    def __init__(self, rule: str, kind: str) -> None:
        super().__init__(rule, kind)
        self.rule = rule
        self.kind = kind


def decode(raw: bytes | None) -> tuple[str, bool]:
    """Bytes of a note as text; bytes that are not UTF-8 are read as Windows-1252. True when that was needed."""
    if raw is None:
        return "", False
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "surrogateescape")
        return _SURROGATE.sub(lambda m: bytes([ord(m.group()) - 0xDC00]).decode("cp1252", "ignore"), text), True


def apply_rules(text: str, touched: dict[str, int]) -> str:
    """Every rule in order; counts in `touched` the rules that changed the text. Raises RuleError."""
    for name, rule in RULES:
        try:
            after = rule(text)
        except MemoryError:
            raise
        except Exception as error:
            raise RuleError(name, type(error).__name__) from None
        if after != text:
            touched[name] += 1
            text = after
    return text


def reason_to_leave_out(text: str, min_words: int) -> str | None:
    """Why a cleaned note is left out, or None."""
    if is_placeholder(text):
        return "placeholder" if text else "no_text"
    return "too_short" if count_words(text) < min_words else None


def count_words(text: str) -> int:
    """Words of a cleaned text: runs between single spaces."""
    return text.count(" ") + 1 if text else 0
