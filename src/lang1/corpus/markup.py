"""Rules on what a note is wrapped in: several fields, RTF, HTML. Text to text; `rules.py` puts them in their order.

striprtf and selectolax do the parsing. striprtf reads a character at a time, so a stretch of plain text goes through
it as one private character and comes back afterwards: the same text, many times sooner.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

# --- fields ----------------------------------------------------------------------------------------------------

_SEPARATORS = "\x07\x0b\x0c\x1c\x1d\x1e\x1f"
_FIELD = re.compile(f"[{_SEPARATORS}]+")
_PLACEHOLDER = r"<?(?:na|n/a|nan|nat|null|none|nil|blank|empty|missing|not available|no text|not applicable)>?"
_PLACEHOLDER_FIRST = "nbemNBEM"
_AROUND = r"[\s\[\]().,;:|/*#_\"'-]*"
_ONLY_PLACEHOLDERS = re.compile(rf"(?:{_AROUND}{_PLACEHOLDER}(?![a-z0-9]))+{_AROUND}", re.I)


def is_placeholder(text: str) -> bool:
    """True when nothing but `<NA>` and its kin, or no letter and no digit at all, stands in the text."""
    if text[:1].isalnum() and text[0] not in _PLACEHOLDER_FIRST:  # most notes, at the cost of nothing
        return False
    return not any(c.isalnum() for c in text) or _ONLY_PLACEHOLDERS.fullmatch(text) is not None


def join_fields(text: str) -> str:
    """Concatenate what a note carries in several fields."""
    parts = _json_fields(text) if ("{" in text or "[" in text) and text.lstrip()[:1] in ("{", "[") else None
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


# --- RTF -------------------------------------------------------------------------------------------------------

_CELL = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:nest)?(?:cell|row)(?![a-z0-9-])")
_TOKEN = re.compile(r"\\(?:[a-z]{1,32}(?:-?\d{1,10})? ?|'[0-9a-f]{2}|[^a-z])|([^\\{};\r\n0-9])([^\\{};\r\n]{7,})", re.I)
_PRIVATE = re.compile("[\U000f0000-\U0010ffff]")
_PRIVATE_FIRST, _PRIVATE_COUNT = 0xF0000, 0xFFFD
_UNUSUAL = re.compile(r"\\u(?:-?\d{6}|c(?!1\b))")


def strip_rtf(text: str) -> str:
    """RTF to plain text; what stands before it is kept; cells of a table become spaces, not bars."""
    start = text.find("{\\rtf") if "\\" in text else -1
    if start < 0:
        return text
    source = text[start:]
    if "\\cell" in source or "\\row" in source or "\\nest" in source:
        source = _CELL.sub(r"\1\\tab ", source)
    return text[:start] + join_surrogates(_rtf_to_text(source))


def _rtf_to_text(source: str) -> str:
    """`striprtf.rtf_to_text(source, errors="ignore")`, sooner.

    A stretch of plain text changes nothing in striprtf's state but its first character, which `\\u` may skip; so the
    rest of it may travel as one character. Not so where striprtf looks at the text itself (links, binary pictures),
    where more than one character is skipped, or where a private character could come from elsewhere.
    """
    from striprtf.striprtf import rtf_to_text

    folded = source.casefold()
    if (
        any(sign in folded for sign in ("fldinst", "\\bin", "\\'f3", "\\'f4"))
        or _UNUSUAL.search(folded)
        or (not source.isascii() and _PRIVATE.search(source))
    ):
        return str(rtf_to_text(source, errors="ignore"))
    stretches: list[str] = []

    def put_away(match: re.Match[str]) -> str:
        if match[2] is None or len(stretches) == _PRIVATE_COUNT:
            return match[0]
        stretches.append(match[2])
        return match[1] + chr(_PRIVATE_FIRST + len(stretches) - 1)

    plain = str(rtf_to_text(_TOKEN.sub(put_away, source), errors="ignore"))
    return _PRIVATE.sub(lambda match: stretches[ord(match[0]) - _PRIVATE_FIRST], plain)


def join_surrogates(text: str) -> str:
    """Halves of a character, as RTF and JSON write those beyond 16 bits, joined; a lone half becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- HTML ------------------------------------------------------------------------------------------------------

_TAG = re.compile(
    r"<(?:!doctype\b|!--|/?(?:html|head|body|div|span|p|br|hr|h[1-6]|ul|ol|li|dl|dt|dd|table|tbody|thead|tr|td|th|b|i|u"
    r"|em|strong|small|sub|sup|font|center|a|img|pre|blockquote|section|article|style|script|meta)(?:\s[^<>]*)?/?>)",
    re.I,
)
_BLOCK = re.compile(r"(?=</?(?:div|p|br|hr|h[1-6]|ul|ol|li|dl|dt|dd|table|tr|td|th|pre|blockquote)\b)", re.I)
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")


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
