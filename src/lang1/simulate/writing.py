"""From chosen phrases to a note as a hospital stores it: styles, budgets, copied text, typos, RTF, HTML, damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from lang1.simulate.styles import Style
from lang1.simulate.tables import (
    ADMISSION,
    CHARLSON,
    DENIALS,
    DISCHARGE,
    FILLERS,
    FRAMES,
    ORDERED,
    PHRASES,
    PLAIN,
    REASONS,
    Finding,
)

REVIEW: tuple[str, ...] = tuple(PHRASES["review"])
EXTERNAL_WORDS: dict[str, str] = PHRASES["external_words"]
"""the external hospital says some things in other words"""
RELATIVES = ("mother", "father", "brother", "sister", "uncle", "aunt")
RTF_SHARE = 0.06
HTML_SHARE = 0.06
DAMAGED_SHARE = 0.01
ACCENT_SHARE = 0.05
LONG_TAIL = 0.09
"""share of notes with copied-forward text"""


@dataclass(frozen=True)
class Mentions:
    """How one finding is said to be there, or not."""

    said: tuple[str, ...]
    denied: tuple[str, ...]
    ordered: float
    """share of mentions by the sentences below, which have the same words either way"""
    there: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """The phrase tables of one hospital."""

    findings: tuple[Mentions, ...]
    discharge: tuple[Mentions, ...]
    conditions: tuple[tuple[str, ...], ...]
    plain: tuple[tuple[str, ...], ...]
    reasons: tuple[tuple[str, ...], ...]


@cache
def words_of(hospital: str) -> Words:
    """Phrase tables; the external hospital says some things in other words."""

    def said(phrases: tuple[str, ...]) -> tuple[str, ...]:
        if hospital == "main":
            return phrases
        return tuple(" ".join(EXTERNAL_WORDS.get(word, word) for word in _pairs(phrase)) for phrase in phrases)

    def mentions(finding: Finding) -> Mentions:
        names = said(finding.said)
        denied = tuple(form.format(name, relative="{relative}") for form in DENIALS[finding.frame] for name in names)
        there, absent = (
            tuple(pair[side].format(name) for pair in FRAMES[finding.frame] for name in names) for side in (0, 1)
        )
        return Mentions(names, denied, ORDERED[finding.frame], there, absent)

    return Words(
        tuple(mentions(f) for f in ADMISSION),
        tuple(mentions(f) for f in DISCHARGE),
        tuple(said(c.said) for c in CHARLSON),
        tuple(said(c.said) for c in PLAIN),
        tuple(said(r.said) for r in REASONS),
    )


def mention(rng: Random, of: Mentions, is_there: bool, habit: int) -> str:
    """A phrase that says the finding is there, or that it is not."""
    if rng.random() < of.ordered:
        return phrase_of(rng, of.there if is_there else of.absent, habit)
    if is_there:
        return phrase_of(rng, of.said, habit)
    return pick(rng, of.denied).format(relative=pick(rng, RELATIVES))


def _pairs(phrase: str) -> list[str]:
    for old in EXTERNAL_WORDS:
        if " " in old:
            phrase = phrase.replace(old, old.replace(" ", "\0"))
    return [word.replace("\0", " ") for word in phrase.split(" ")]


def pick(rng: Random, items: Sequence[str]) -> str:
    """One of `items`."""
    return items[int(rng.random() * len(items))]


def phrase_of(rng: Random, items: Sequence[str], habit: int) -> str:
    """One of `items`: an author mostly keeps to a habit."""
    if rng.random() < 0.5:
        return items[habit % len(items)]
    return items[int(rng.random() * len(items))]


def fill(rng: Random, sections: dict[str, list[str]], places: Sequence[str], words: int, child: bool = False) -> None:
    """Add phrases that say nothing until about `words` more words stand in the note."""
    steps = {name: int(rng.random() * 1000) for name in places}
    turn = int(rng.random() * len(places))
    for k in range(60):
        if words < 2:
            return
        name = places[(turn + k) % len(places)]
        pool = FILLERS["child" if child and name in ("social", "hpi") else name]
        steps[name] += 7  # shares no factor with the length of a pool: no phrase comes twice before all have come
        phrase = pool[steps[name] % len(pool)]
        place(rng, sections[name], phrase, 1 if name == "hpi" else 0)
        words -= phrase.count(" ") + 1


def place(rng: Random, part: list[str], phrase: str, first: int = 0) -> None:
    """Put a phrase anywhere in a section, but not before its first `first` phrases."""
    part.insert(first + int(rng.random() * (len(part) - first + 1)), phrase)


def add_decoys(rng: Random, sections: dict[str, list[str]], decoys: list[tuple[str, str]], words: int) -> None:
    """Add (section, phrase) pairs in random order while `words` remain: the sick have no longer notes for them."""
    for k in range(len(decoys) - 1, 0, -1):
        j = int(rng.random() * (k + 1))
        decoys[k], decoys[j] = decoys[j], decoys[k]
    for name, phrase in decoys:
        words -= phrase.count(" ") + 1
        if words < 0:
            return
        place(rng, sections[name], phrase, 1 if name == "hpi" else 0)


def count_words(sections: dict[str, list[str]]) -> int:
    """Words in all sections."""
    return sum(phrase.count(" ") + 1 for part in sections.values() for phrase in part)


def compose(sections: dict[str, list[str]], style: Style) -> list[str]:
    """Lines of the note: a header and its phrases, in the style's order."""
    lines = []
    for name in style.order:
        part = sections.get(name)
        if part:
            header = style.headers[name]
            lines.append(f"{header} {style.joiner.join(part)}." if header else f"{style.joiner.join(part)}.")
    return lines


def tail(rng: Random, note_length: float, body_words: int) -> str:
    """Copied-forward text after the body: rare and long, or by the configured length; it says nothing."""
    wanted = (note_length - 1.0) * body_words if note_length > 1 else 0.0
    if rng.random() < LONG_TAIL:
        wanted += body_words * (1.0 + 4.0 * rng.random())
    if wanted < 6:
        return ""
    parts, k = [], int(rng.random() * len(REVIEW))
    while wanted > 0:
        parts.append(REVIEW[k % len(REVIEW)])
        wanted -= parts[-1].count(" ") + 1
        k += 1 + int(rng.random() * 3)
    return "Review of systems: " + ", ".join(parts) + "."


def finish(rng: Random, lines: list[str]) -> str:
    """The text as stored: now and then a typo, an accent, RTF, HTML, or damage."""
    draw = rng.random()
    if draw < DAMAGED_SHARE:
        return _damaged(rng, lines)
    if rng.random() < 0.04:
        lines = [_typo(rng, line) for line in lines]
    if rng.random() < ACCENT_SHARE:
        lines = [
            *lines,
            pick(
                rng,
                (
                    "patient\u00e2\u20ac\u2122s chart reviewed.",
                    "na\u00efve to opioids.",
                    "temperature in \u00c2\u00b0F.",
                    "seen with Jos\u00e9, interpreter.",
                ),
            ),
        ]
    if draw < DAMAGED_SHARE + RTF_SHARE:
        body = "\\par\n".join(line.replace("\\", "\\\\").replace("{", "\\{").replace("}", "\\}") for line in lines)
        body = "".join(c if ord(c) < 128 else f"\\u{ord(c)}?" for c in body)
        return "{\\rtf1\\ansi\\deff0{\\fonttbl{\\f0 Arial;}}\\f0\\fs20 " + body + "\\par}"
    if draw < DAMAGED_SHARE + RTF_SHARE + HTML_SHARE:
        safe = (line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines)
        return "<html><body><p>" + "</p><p>".join(safe) + "</p></body></html>"
    return "\n".join(lines)


def _damaged(rng: Random, lines: list[str]) -> str:
    draw = rng.random()
    if draw < 0.3:
        return "<NA>"
    if draw < 0.5:
        return pick(rng, ("see scanned document", "dictated, not yet transcribed", "error", "test note"))
    if draw < 0.7:
        return ""
    text = "\n".join(lines)
    if draw < 0.85:
        return "\ufffd\ufffd" + text[: 20 + int(rng.random() * 20)]
    return "".join(c if rng.random() < 0.5 else "\ufffd" for c in text)


def _typo(rng: Random, line: str) -> str:
    if len(line) < 20:
        return line
    at = 5 + int(rng.random() * (len(line) - 10))
    if line[at].isalpha() and line[at + 1].isalpha():
        return line[:at] + line[at + 1] + line[at] + line[at + 2 :]
    return line
