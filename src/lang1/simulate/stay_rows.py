"""Inpatient stays as rows: visits, transfers, codes, claims, truth, and the notes with their times."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from lang1.simulate import notes_other
from lang1.simulate.admission import SERVICES
from lang1.simulate.course import CLAIM_STATUS, DISPOSITIONS, Stays
from lang1.simulate.notes_discharge import DischargeChart, death_summary, write_discharge
from lang1.simulate.notes_hp import AdmissionChart, write_hp
from lang1.simulate.population import END, MINUTES, Patients
from lang1.simulate.rows import INPATIENT, VISIT_STRIDE, Rows, chronic_codes, vocabulary_at
from lang1.simulate.sites import FACILITIES, Provider
from lang1.simulate.styles import Style, style_of
from lang1.simulate.tables import PAYERS, REASONS
from lang1.simulate.writing import finish

TASKS = ("readmission", "mortality", "los", "cci", "denial")
TRANSFER_SHARE = 0.01
"""stays of more than two days that go on in a sister hospital: two visits with a gap of one to four hours"""
HP_SHARE, DISCHARGE_SHARE = 0.975, 0.97
LATE_SHARE, UNSIGNED_SHARE = 0.006, 0.004
"""H&Ps signed after more than five days, or never"""
RADIOLOGY_SHARE, PATHOLOGY_SHARE = 0.85, 0.14
PLAIN_CODED = 0.7


@dataclass
class _Stay:
    """One stay on its way into the tables."""

    i: int
    patient: int
    number: int
    person: int
    admit: int
    discharge: int
    died: bool
    author: Provider
    authors: tuple[Provider, ...]
    style: Style
    visits: tuple[int, ...] = ()


class StayWriter:
    """Writes the stays of a chunk into its rows."""

    def __init__(self, rows: Rows, patients: Patients, stays: Stays, rng: np.random.Generator) -> None:
        self.rows, self.stays = rows, stays
        self.admission, self.final = AdmissionChart(stays, patients), DischargeChart(stays)
        self.draws: list[list[float]] = rng.random((len(stays), 7)).tolist()
        plain = stays.facts["plain"] & (rng.random(stays.facts["plain"].shape) < PLAIN_CODED)
        self.plain_coded: list[list[bool]] = plain.tolist()
        facilities = len(FACILITIES[rows.job.hospital])
        self.facility: list[int] = (rng.random(len(patients)) * facilities).astype(int).tolist()
        self.outcomes: dict[str, list[Any]] = {key: value.tolist() for key, value in stays.outcomes.items()}
        self.service: list[int] = stays.facts["service"].tolist()
        self.year: list[int] = stays.facts["year"].tolist()
        self.truths = {task: stays.truths[task].tolist() for task in TASKS}

    def write(self) -> None:
        """All stays, patient by patient in the order of time."""
        for i in np.lexsort((self.stays.admit, self.stays.patient)).tolist():
            stay = self._begin(i)
            stay.visits = self._visits(stay)
            self._truth(stay)
            self._hp(stay)
            self._progress(stay)
            self._reports(stay)
            if stay.discharge < END:
                self._discharge_summary(stay)
                self._codes(stay)
                self._claim(stay)

    def _begin(self, i: int) -> _Stay:
        stays, rows = self.stays, self.rows
        patient = int(stays.patient[i])
        site = rows.frame.site_of[(self.facility[patient], SERVICES[self.service[i]])]
        authors = rows.frame.authors[site]
        author = authors[int(self.draws[i][0] * len(authors))]
        style = style_of(rows.job.hospital, author.style, self.year[i])
        return _Stay(i, patient, int(stays.number[i]), rows.person_id(patient), int(stays.admit[i]),
                     int(stays.discharge[i]), self.outcomes["died"][i], author, authors, style)  # fmt: skip

    def _visits(self, stay: _Stay) -> tuple[int, ...]:
        i, draws = stay.i, self.draws[stay.i]
        kind = REASONS[self.admission.reason[i]].kind
        place = DISPOSITIONS[self.outcomes["disposition"][i]]
        came = "home" if draws[2] < 0.85 else "outside hospital" if draws[2] < 0.92 else "skilled nursing facility"
        if kind == "newborn":
            came = "born here"
        leaves = stay.admit + int((stay.discharge - stay.admit) * (0.3 + 0.4 * draws[3]))
        moves = draws[1] < TRANSFER_SHARE and stay.discharge - stay.admit > 2 * MINUTES and leaves + 240 < END
        site = stay.author.care_site_id
        add, who = self.rows.add_visit, stay.author.provider_id
        if not moves:
            return (add(stay.person, INPATIENT, stay.admit, stay.discharge, site, who, kind, came, place),)
        first = add(stay.person, INPATIENT, stay.admit, leaves, site, who, kind, came, "Transfer")
        sister = (self.facility[stay.patient] + 1) % len(FACILITIES[self.rows.job.hospital])
        site = self.rows.frame.site_of[(sister, SERVICES[self.service[i]])]
        who = self.rows.frame.authors[site][0].provider_id
        starts = leaves + 60 + int(180 * draws[4])
        return (first, add(stay.person, INPATIENT, starts, stay.discharge, site, who, kind, "outside hospital", place))

    def _truth(self, stay: _Stay) -> None:
        """Both visits of a transferred stay carry the probabilities of the whole stay."""
        for visit in stay.visits:
            for task in TASKS:
                if task == "readmission" and stay.died:
                    continue
                p = self.truths[task][stay.i]
                values = p if isinstance(p, list) else [1.0 - p, p]
                padded = values + [None] * (5 - len(values))
                self.rows.add("truth", task=task, encounter_id=str(visit), **{f"p_{k}": padded[k] for k in range(5)})

    def _hp(self, stay: _Stay) -> None:
        rng = self.rows.text_rng(stay.patient, stay.number, 0)
        if rng.random() >= HP_SHARE:
            return
        delay = min(max(int(rng.lognormvariate(4.8, 0.5)), 25), 330)
        signed: int | None = stay.admit + delay
        odd = rng.random()
        if odd < LATE_SHARE:
            signed = stay.admit + int(MINUTES * (5.5 + 4 * rng.random()))
        elif odd < LATE_SHARE + UNSIGNED_SHARE:
            signed = None
        lines = write_hp(self.admission, stay.i, self.rows.words, stay.style, stay.author.habit, rng,
                         self.rows.job.note_length)  # fmt: skip
        self.rows.add_note(stay.person, stay.visits[0], "H&P", stay.author, stay.admit + delay // 3, signed,
                           finish(rng, lines))  # fmt: skip

    def _progress(self, stay: _Stay) -> None:
        rng = self.rows.text_rng(stay.patient, stay.number, 2)
        days = (stay.discharge - stay.admit) // MINUTES
        for k in range(min(int(rng.random() * 3.6), days)):
            at = stay.admit + MINUTES * (k + 1) + int(rng.random() * 600) - 300
            author = _one_of(rng, stay.authors)
            lines = notes_other.write_progress(self.admission, stay.i, k + 2, self.rows.words, stay.style, author.habit,
                                               rng, self.rows.job.note_length)  # fmt: skip
            text = finish(rng, lines)
            if at < stay.discharge:
                signed = at + 30 + int(rng.random() * 120)
                self.rows.add_note(stay.person, stay.visits[0], "progress", author, at, signed, text)

    def _reports(self, stay: _Stay) -> None:
        rng = self.rows.text_rng(stay.patient, stay.number, 3)
        for kind, share in (("radiology", RADIOLOGY_SHARE), ("pathology", PATHOLOGY_SHARE)):
            if rng.random() < share:
                at = stay.admit + int(rng.random() * (stay.discharge - stay.admit))
                add_report(self.rows, rng, kind, stay.person, stay.visits[0], self.admission.reason[stay.i], at)

    def _discharge_summary(self, stay: _Stay) -> None:
        rng = self.rows.text_rng(stay.patient, stay.number, 1)
        if rng.random() >= DISCHARGE_SHARE:
            return
        author = stay.author if rng.random() < 0.7 else _one_of(rng, stay.authors)
        written = stay.discharge - 30 - int(rng.random() * 200)
        signed = stay.discharge - 20 + int(rng.random() * 1500)
        words, habit, length = self.rows.words, author.habit, self.rows.job.note_length
        if stay.died:
            lines = death_summary(self.admission, stay.i, words, stay.style, habit, rng)
        else:
            lines = write_discharge(self.admission, self.final, stay.i, words, stay.style, habit, rng, length)
        self.rows.add_note(
            stay.person, stay.visits[-1], "discharge summary", author, written, signed, finish(rng, lines)
        )

    def _codes(self, stay: _Stay) -> None:
        i = stay.i
        if self.outcomes["uncoded"][i]:
            return
        vocabulary = vocabulary_at(stay.discharge)
        reason = REASONS[self.admission.reason[i]]
        principal = reason.icd9 if vocabulary == "ICD9CM" else reason.icd10
        chronic = chronic_codes(self.outcomes["coded"][i], self.plain_coded[i], vocabulary, stay.patient)
        at = min(stay.discharge + int(MINUTES * (1 + 9 * self.draws[i][5])), END - 1)
        for visit in stay.visits:
            self.rows.add_codes(stay.person, visit, list(dict.fromkeys([principal, *chronic])), vocabulary, at)

    def _claim(self, stay: _Stay) -> None:
        i = stay.i
        if self.outcomes["unclaimed"][i]:
            return
        settled = stay.discharge + int(MINUTES * (10 + 50 * self.draws[i][6]))
        self.rows.add(
            "claim",
            claim_id=self.rows.job.chunk * VISIT_STRIDE + len(self.rows.tables["claim"]["claim_id"]) + 1,
            visit_occurrence_id=stay.visits[0],
            payer=PAYERS[self.admission.payer[i]],
            claim_status=CLAIM_STATUS[3 if settled >= END else self.outcomes["claim_status"][i]],
            status_datetime=min(settled, END - 1),
        )


def add_report(rows: Rows, rng: Random, kind: str, person: int, visit: int, reason: int, at: int) -> None:
    """A radiology or pathology report."""
    length = rows.job.note_length
    author = _one_of(rng, rows.frame.authors[rows.frame.site_of[(0, kind)]])
    if kind == "radiology":
        lines = notes_other.write_radiology(reason, rows.words, rng, length)
    else:
        lines = notes_other.write_pathology(rng, length)
    rows.add_note(person, visit, kind, author, at, at + 60 + int(rng.random() * 600), finish(rng, lines))


def _one_of(rng: Random, providers: tuple[Provider, ...]) -> Provider:
    return providers[int(rng.random() * len(providers))]
