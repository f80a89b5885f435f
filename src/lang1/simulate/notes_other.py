"""Progress, radiology and pathology notes: short, and mostly about other things."""

from __future__ import annotations

from random import Random

from lang1.simulate.notes_hp import AdmissionChart, person
from lang1.simulate.styles import Style
from lang1.simulate.tables import PHRASES, REASONS
from lang1.simulate.writing import Words, mention, phrase_of, pick, tail


def write_progress(
    chart: AdmissionChart, i: int, day: int, words: Words, style: Style, habit: int, rng: Random, note_length: float
) -> list[str]:
    """Lines of a progress note of hospital day `day`."""
    reason = phrase_of(rng, words.reasons[chart.reason[i]], habit)
    parts = [
        f"day {day}, {person(rng, chart.age[i], chart.female[i])} with {reason}",
        pick(rng, PHRASES["progress_trend"]),
    ]
    for f, ways in enumerate(words.findings):
        if chart.findings[i][f] and rng.random() < 0.3:
            parts.append(mention(rng, ways, True, habit + f))
    routine = PHRASES["progress"]
    start = int(rng.random() * len(routine))
    for k in range(5 + int(rng.random() * 6)):
        parts.append(routine[(start + 3 * k) % len(routine)])
    lines = [style.joiner.join(parts) + "."]
    extra = tail(rng, note_length, 40)
    return [*lines, extra] if extra else lines


def write_radiology(reason: int, words: Words, rng: Random, note_length: float) -> list[str]:
    """Lines of a radiology report for the kind of imaging that the reason asks for."""
    kind = REASONS[reason].imaging if rng.random() < 0.8 else pick(rng, tuple(PHRASES["radiology"]))
    report = PHRASES["radiology"][kind]
    normal = report["normal"]
    frame = pick(rng, PHRASES["radiology_frame"]).format(reason=pick(rng, words.reasons[reason]))
    start = int(rng.random() * len(normal))
    findings = [normal[(start + k) % len(normal)] for k in range(3 + int(rng.random() * 3))]
    impression = "no acute abnormality"
    if rng.random() < 0.4:
        impression = pick(rng, report["abnormal"])
        findings.insert(int(rng.random() * len(findings)), impression)
    lines = [report["title"], frame + ".", "Findings: " + ". ".join(findings) + ".", f"Impression: {impression}."]
    extra = tail(rng, note_length, 35)
    return [*lines, extra] if extra else lines


def write_pathology(rng: Random, note_length: float) -> list[str]:
    """Lines of a pathology report."""
    specimen = pick(rng, tuple(PHRASES["pathology"]))
    diagnoses = PHRASES["pathology"][specimen]
    start = int(rng.random() * len(diagnoses))
    chosen = [diagnoses[(start + k) % len(diagnoses)] for k in range(2 + int(rng.random() * 2))]
    frames = PHRASES["pathology_frame"]
    frame = int(rng.random() * len(frames))
    about = [frames[(frame + k) % len(frames)] for k in range(2)]
    lines = [f"SURGICAL PATHOLOGY: {specimen}.", ". ".join(about) + ".", "Diagnosis: " + "; ".join(chosen) + "."]
    extra = tail(rng, note_length, 30)
    return [*lines, extra] if extra else lines
