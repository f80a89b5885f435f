"""Patterns of what names a person: phone, MRN, SSN, e-mail, date, name. They count; they never change a text.

Our own, for US English clinical text, so that a scan needs no model and no network. Each is a shape and, where a
shape is not enough, a check of its numbers or a cue in front of it: 120/80 is no date, ten digits in a row are a phone
number only after "phone" or the like, 123-45-6789 is a social security number only in the ranges that were issued. A
name is seen by a title, a label or a credential beside it; one that stands alone is not seen: that takes a model of
names (`lang1 scan --presidio MODEL`). Placeholders of de-identified text (XXX, ABC, [**Name**], ___) do not count.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Check = Callable[[re.Match[str]], bool]


@dataclass(frozen=True)
class Pattern:
    """A shape, what else must hold of a match, and a quick anchor: the shape is looked for only around anchors.

    The anchor begins with a set of characters and nothing that looks back, so that Python's engine skips what cannot
    begin one; that makes a scan about ten times as fast as the shapes alone.
    """

    name: str
    anchor: re.Pattern[str]
    before: int
    """characters before an anchor in which a match of the shape may begin"""
    after: int
    """characters behind an anchor in which it may end"""
    shape: re.Pattern[str]
    holds: Check = lambda found: True


def find(pattern: Pattern, text: str) -> Iterator[re.Match[str]]:
    """The matches of a pattern. What they hold is for the caller to count, never to print."""
    for begin, end in _windows(pattern, text):
        yield from (found for found in pattern.shape.finditer(text, begin, end) if pattern.holds(found))


def _windows(pattern: Pattern, text: str) -> Iterator[tuple[int, int]]:
    """Spans around the anchors, those that touch made one."""
    begin, end = 0, -1
    for found in pattern.anchor.finditer(text):
        if found.start() - pattern.before > end:
            if end >= 0:
                yield begin, end
            begin = max(found.start() - pattern.before, 0)
        end = found.end() + pattern.after
    if end >= 0:
        yield begin, end


def count_matches(text: str) -> dict[str, int]:
    """Matches by pattern, those without any left out."""
    counts: dict[str, int] = {}
    for pattern in PATTERNS:
        number = sum(1 for _ in find(pattern, text))
        if number:
            counts[pattern.name] = counts.get(pattern.name, 0) + number
    return counts


# --- numbers ---------------------------------------------------------------------------------------------------

_ALONE, _ENDS = r"(?<![\w.+/-])", r"(?![\w/]|[.-]\d)"

_EXTENSION = r"(?:,?\ ?(?i:x|ext\.?|extension)\ ?\d{1,6})?"

PHONE = Pattern(
    "phone",
    re.compile(r"\d\d\d[-./ )]{0,2}\d\d\d\d|\+\d"),
    40,
    32,
    re.compile(
        rf"""
        (?:
          {_ALONE}(?:\+?1[-.\ ]?)?(?:\([2-9]\d\d\)[-.\ ]?|[2-9]\d\d[-./\ ])[2-9]\d\d[-.\ ]\d{{4}}
          | {_ALONE}\+1[2-9]\d\d[2-9]\d{{6}}
          | {_ALONE}\+(?!1\b)[1-9]\d{{0,2}}(?:[-.\ ]\(?\d{{1,5}}\)?){{2,5}}
          | (?<!\w)(?i:phone|telephone|tel|ph|fax|facsimile|cell|cellular|mobile|pager|beeper
            |callback|call|contact|reached\ at)
            (?i:\ (?:number|no|num|at))?(?:\ is)?[.:\#]{{0,2}}\ ?
            (?:\(?[2-9]\d\d\)?[-.\ ]?)?[2-9]\d\d[-.\ ]?\d{{4}}
        ){_EXTENSION}{_ENDS}
        """,
        re.X,
    ),
    lambda found: sum(c.isdigit() for c in found.group()) >= 7,
)


def _is_issued(found: re.Match[str]) -> bool:
    """Numbers that the Social Security Administration can have issued: no 000, 666 or 9xx, no 00, no 0000."""
    digits = re.sub(r"\D", "", found.group())[-9:]
    return (
        digits[:3] not in {"000", "666"} and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"
    )  # fmt: skip


SSN = Pattern(
    "ssn",
    re.compile(r"\d\d\d[-. ]?\d\d[-. ]?\d\d\d\d"),
    40,
    2,
    re.compile(
        rf"""
        {_ALONE}\d{{3}}-\d{{2}}-\d{{4}}{_ENDS}
        | \b(?i:ssn|ss\#|social\ security(?:\ (?:number|no|\#))?)(?:\ is)?[.:\#]{{0,2}}\ ?
          \d{{3}}[-.\ ]?\d{{2}}[-.\ ]?\d{{4}}{_ENDS}
        """,
        re.X,
    ),
    _is_issued,
)

MRN = Pattern(
    "mrn",
    re.compile(r"\d-?\d-?\d-?\d"),
    48,
    24,
    re.compile(
        r"""
        (?<!\w)(?i:
            mrn | mr\ ?(?:\#|no\b\.?|number) | med(?:ical)?\.?\ rec(?:ord)?s?\.?(?:\ (?:number|num|no|id)\b\.?)?
          | (?:patient|pt|subject)\.?\ (?:id|identifier|number)\b | record\ ?(?=\#)
          | (?:unit|record)\ (?:number|no)\b\.?
          | (?:chart|account|acct|encounter|visit|accession|case|specimen|hospital)\.?\ (?:number|num|no|id)\b\.?
          | (?:chart|account|acct|encounter|accession|case)\.?\ ?(?=\#)
        )
        (?:\ (?:is|of))?[\ :\#=(-]{0,4}
        (?:[A-Za-z]{1,3}-?)?\d(?:-?\d){3,14}(?![\w/]|[.,]\d)
        """,
        re.X,
    ),
)

EMAIL = Pattern(
    "email",
    re.compile("@"),
    72,
    256,
    re.compile(
        r"(?<![\w.+-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}\b"
    ),
)

# --- dates -----------------------------------------------------------------------------------------------------

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)"
)
_CAPITAL = rf"(?=[A-Z])(?i:{_MONTH})\.?"
_SMALL = r"(?:january|february|april|june|july|august|september|october|november|december)"
"""written small, a month without a year counts only where it is no other word: may, march, mar"""
_ANY_SMALL = rf"(?=[a-z])(?i:{_MONTH})\.?"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?:19|20)\d\d"
_NO_NUMBER = r"(?![\w/%]|[.,-]\d)"


def _is_day(found: re.Match[str]) -> bool:
    """A month and a day where they stand, in either order; a year in front leaves month and day."""
    numbers = [int(n) for n in re.findall(r"\d+", found.group())]
    if found.group("month"):
        return True
    first, second = numbers[1:3] if found.group("iso") else numbers[:2]
    if found.group("iso"):
        return 1 <= first <= 12 and 1 <= second <= 31
    return (1 <= first <= 12 and 1 <= second <= 31) or (1 <= second <= 12 and 1 <= first <= 31)


DATE_IN_NUMBERS = Pattern(
    "date",
    re.compile(r"\d[-/.]\d\d?[-/.]\d|\d/\d"),
    12,
    24,
    re.compile(
        rf"""
        (?P<iso>(?<![\w./-]){_YEAR}([-/.])\d{{1,2}}\2\d{{1,2}}(?=T\d|{_NO_NUMBER}))
        | (?P<month>(?<![\w./-])(?:0?[1-9]|1[0-2])/{_YEAR}{_NO_NUMBER})
        | (?<![\w./-])\d{{1,2}}(?:/\d{{1,2}}/|-\d{{1,2}}-|\.\d{{1,2}}\.(?={_YEAR}))(?:{_YEAR}|\d\d){_NO_NUMBER}
        | (?:(?<=\bon\ )|(?<=\bsince\ )|(?<=\bdated\ )|(?<=\buntil\ )|(?<=\bfrom\ )
          |(?<=\badmitted\ )|(?<=\bdischarged\ ))\d{{1,2}}/\d{{1,2}}{_NO_NUMBER}
          (?!\ (?i:of|tab|tablet|dose|pill|cup|normal|ns|strength|liter|teaspoon|pack|inch|cm|mm|mg|ml|saline)\w*\b)
        """,
        re.X,
    ),
    _is_day,
)
DATE_IN_WORDS = Pattern(
    "date",
    re.compile("Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"),
    10,
    28,
    re.compile(
        rf"""
        (?<!\w){_CAPITAL}\ {_DAY}(?:,?\ {_YEAR})?(?![\w/]|[.,]\d)
        | (?<![\w./-]){_DAY}(?:\ of)?[-\ ]{_CAPITAL}(?:,?[-\ ]{_YEAR})?(?!\w)
        | (?<!\w){_CAPITAL},?\ (?:of\ )?{_YEAR}(?!\w)
        """,
        re.X,
    ),
)
DATE_IN_SMALL_WORDS = Pattern(
    "date",
    re.compile(
        r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?,? (?:of )?\d"
        r"|\d(?:st|nd|rd|th)?(?: of)?[- ](?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
    ),
    10,
    28,
    re.compile(
        rf"""
        (?<!\w)(?:{_ANY_SMALL}\ {_DAY},?\ {_YEAR}|{_SMALL}\ {_DAY})(?![\w/]|[.,]\d)
        | (?<![\w./-]){_DAY}(?:\ of)?[-\ ](?:{_ANY_SMALL},?[-\ ]{_YEAR}|{_SMALL})(?!\w)
        | (?<!\w){_ANY_SMALL},?\ (?:of\ )?{_YEAR}(?!\w)
        """,
        re.X,
    ),
)

# --- names -----------------------------------------------------------------------------------------------------


@functools.cache
def _not_names() -> frozenset[str]:
    """Plain and clinical words, and placeholders, that stand where a name could: "Dr. Will see", "Patient: Denies"."""
    return frozenset((Path(__file__).parent / "not_names.txt").read_text(encoding="utf-8").split())


def _are_names(found: re.Match[str]) -> bool:
    """At least one captured word, and none that is a plain or a clinical word, or a placeholder."""
    words = [word for group in found.groups() if group for word in re.findall(r"[A-Za-z'-]{2,}", group)]
    plain = [word for word in words if word.lower().removesuffix("'s").strip("'-") in _not_names()]
    return bool(words) and words[0] not in plain and len(plain) < len(words)


def _are_all_names(found: re.Match[str]) -> bool:
    """No captured word is a plain or a clinical word, or a placeholder."""
    return all(word.lower() not in _not_names() for word in re.findall(r"[A-Za-z'-]{2,}", found.group(1)))


_WORD = r"(?:(?:Mc|Mac|O'|D'|De|La|Le|Van|Von)?[A-Z][a-z]+(?:[-'][A-Z]?[a-z]+)?)"
_UPPER = r"(?:[A-Z]{2,}(?:[-'][A-Z]{2,})?)"
_ANY = rf"(?:{_WORD}|{_UPPER})"
_INITIAL = r"(?:\ [A-Z]\.?)?"
_LABEL = (
    r"(?:(?i:patient|pt|full|first|last)\.?\ )?(?i:name)|(?i:patient|pt|attending|physician|provider|surgeon|resident"
    r"|author|signed|(?:electronically\ )?signed\ by|dictated\ by|dictator|transcribed\ by|transcriptionist"
    r"|referring(?:\ physician|\ provider)?|pcp|cc|next\ of\ kin|emergency\ contact|mother|father|spouse|wife|husband"
    r"|son|daughter)"
)

NAME_BY_TITLE = Pattern(
    "name",
    re.compile(r"[DMNPdm](?:r[s. ]|s[. ]|R[.S]|S\.|iss |octor |urse |rof)"),
    1,
    72,
    re.compile(
        rf"""
        (?<!\w)(?:(?:Dr|Mr|Mrs|Ms|Prof)(?:\.\ ?|\ )|(?:Miss|Doctor|Nurse|Professor)\ )(?:[A-W]\.\ ?)?
        ({_ANY}(?:{_INITIAL}\ {_ANY})?)(?!\w)
        | (?<!\w)(?:DR|MRS?|MS)\.\ ?(?:[A-W]\.\ ?)?({_UPPER}(?:{_INITIAL}\ {_UPPER})?)(?!\w)
        | (?<!\w)(?:dr|mrs?|ms)\.\ ?([a-z]'[a-z]{{2,}}|[a-z]{{3,}}(?:[-'][a-z]+)?)(?!\w)
        """,
        re.X,
    ),
    _are_names,
)
NAME_BY_LABEL = Pattern(
    "name",
    re.compile("[:=] ?[A-Z]|by [A-Z]"),
    40,
    72,
    re.compile(
        rf"""
        (?<!\w)(?:(?:{_LABEL})\ ?[:=]|(?i:signed|dictated|transcribed)\ by)\ ?(?!(?:Dr|Mr|Mrs|Ms|Prof)\b\.?)
        ({_ANY}(?:,\ ?|{_INITIAL}\ ){_ANY})(?!\w)
        """,
        re.X,
    ),
    _are_all_names,
)  # fmt: skip
NAME_BY_CREDENTIAL = Pattern(
    "name",
    re.compile(r"M\.?D|D\.?O|R\.?N|N\.?P|P\.?A|Ph\.?D|DPM|DDS|PharmD|LCSW|CRNA|FACS|APRN"),
    72,
    8,
    re.compile(
        rf"""
        (?<!\w)(?<!Dr\.\ )(?<!Mr\.\ )(?<!Dr\ )((?:{_WORD}{_INITIAL}|[A-Z]\.)\ {_WORD}),?\ 
        (?:M\.?D\.?|D\.?O\.?|R\.?N\.?|N\.?P\.?|P\.?A\.?(?:-C)?|Ph\.?D\.?|DPM|DDS|PharmD|LCSW|CRNA|FACS|APRN|DNP)(?!\w)
        """,
        re.X,
    ),
    _are_all_names,
)  # fmt: skip

PATTERNS = (
    PHONE,
    MRN,
    SSN,
    EMAIL,
    DATE_IN_NUMBERS,
    DATE_IN_WORDS,
    DATE_IN_SMALL_WORDS,
    NAME_BY_TITLE,
    NAME_BY_LABEL,
    NAME_BY_CREDENTIAL,
)
NAMES = tuple(dict.fromkeys(pattern.name for pattern in PATTERNS))
"""phone, mrn, ssn, email, date, name"""
