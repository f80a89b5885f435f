"""One chunk of patients, from seed to Arrow tables: the unit of work of a worker process.

A chunk depends on (seed, chunk number) alone, so the content is the same whatever the number of workers. Ids are
strided by chunk. Within a chunk three random streams (facts, outcomes, words) keep a changed outcome from moving
anything that was written before it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from lang1.simulate import notes_other, writing
from lang1.simulate.conditions import CHARLSON, PLAIN
from lang1.simulate.course import CLAIM_STATUS, DISPOSITIONS, SERVICES, Stays, simulate_stays
from lang1.simulate.notes_discharge import DischargeChart, death_summary, write_discharge
from lang1.simulate.notes_hp import AdmissionChart, write_hp
from lang1.simulate.phrases import STYLE_SHARE, Style
from lang1.simulate.population import (
    BOROUGHS,
    END,
    ETHNICITIES,
    HOSPITALS,
    MINUTES,
    RACES,
    START,
    Array,
    Ints,
    Patients,
    draw_patients,
    present_conditions,
)
from lang1.simulate.reasons import REASONS
from lang1.simulate.sites import FACILITIES, Provider, frame_of
from lang1.simulate.truth import PAYERS

PATIENTS = 500
"""patients a chunk"""
VISIT_STRIDE, NOTE_STRIDE, CODE_STRIDE = 20_000, 60_000, 200_000
TRANSFER_SHARE = 0.01
ICD10_FROM = int(np.datetime64("2015-10-01", "D").astype(np.int64)) * MINUTES
NOTE_KINDS = ("H&P", "discharge summary", "progress", "radiology", "pathology")
_CATEGORY = {"radiology": "radiology", "pathology": "pathology"}
_INPATIENT, _EMERGENCY, _OUTPATIENT = 9201, 9203, 9202
_STAMP = pa.timestamp("us")

Rows = dict[str, list[Any]]


@dataclass(frozen=True)
class Job:
    """What a worker needs to make a chunk."""

    seed: int
    chunk: int
    patients: int
    hospital: str
    note_length: float


@dataclass
class _State:
    """What the parts of a chunk share."""

    job: Job
    tables: dict[str, Rows]
    words: writing.Words
    rng: Random
    text_seed: int


def simulate_chunk(job: Job) -> dict[str, pa.Table]:
    """Tables of one chunk: person, visit_occurrence, condition_occurrence, note, death, claim, truth."""
    streams = np.random.SeedSequence([job.seed, job.chunk]).spawn(5)
    generators = [np.random.Generator(np.random.Philox(stream)) for stream in streams[:4]]
    hospital = HOSPITALS[job.hospital]
    patients = draw_patients(job.patients, hospital, generators[0])
    stays, death = simulate_stays(patients, hospital, generators[1], generators[2])
    state = _State(job, {name: defaultdict(list) for name in ("person", "visit_occurrence", "condition_occurrence", "note",
                                                              "death", "claim", "truth")},
                   writing.words_of(job.hospital), Random(), int(streams[4].generate_state(1, np.uint64)[0]))
    _add_people(state, patients, death)
    _add_stays(state, patients, stays, generators[3])
    _add_other_visits(state, patients, stays, death, generators[3])
    return {name: _table(name, rows) for name, rows in state.tables.items()}


_TIME_COLUMNS = ("birth_datetime", "visit_start_datetime", "visit_end_datetime", "condition_start_datetime", "note_datetime",
                 "note_signed_datetime", "death_datetime", "status_datetime")


def _table(name: str, rows: Rows) -> pa.Table:
    columns = {}
    for key, values in rows.items():
        if key in _TIME_COLUMNS:
            micro = [None if v is None else v * 60_000_000 for v in values]
            columns[key] = pa.array(micro, pa.int64()).cast(_STAMP)
            day = key.removesuffix("time")
            if name != "claim" and day not in ("note_signed_date", "birth_date"):
                last = END // MINUTES - 1
                columns[day] = pa.array([last if v is None else v // MINUTES for v in values], pa.int32()).cast(pa.date32())
        elif key.startswith("p_"):
            columns[key] = pa.array(values, pa.float64())
        else:
            columns[key] = pa.array(values, pa.string() if key in _TEXT_COLUMNS else None)
    return pa.table(columns)


_TEXT_COLUMNS = ("race_source_value", "ethnicity_source_value", "visit_source_value", "admitted_from_source_value",
                 "discharged_to_source_value", "note_text", "task", "encounter_id", "payer", "claim_status", "note_title",
                 "condition_status_source_value", "condition_source_value")


def _add_people(state: _State, patients: Patients, death: Ints) -> None:
    base = state.job.chunk * PATIENTS
    person, dead = state.tables["person"], state.tables["death"]
    births = patients.birth.astype("datetime64[m]").tolist()
    for i, birth in enumerate(births):
        person["person_id"].append(base + i + 1)
        person["person_source_value"].append(f"P{base + i + 1:08d}")
        person["gender_concept_id"].append(8532 if patients.female[i] else 8507)
        person["gender_source_value"].append("female" if patients.female[i] else "male")
        person["year_of_birth"].append(birth.year)
        person["month_of_birth"].append(birth.month)
        person["day_of_birth"].append(birth.day)
        person["birth_datetime"].append(int(patients.birth[i]))
        race = int(patients.race[i])
        person["race_concept_id"].append((8527, 8516, 8515, 0, 0)[race])
        person["race_source_value"].append(RACES[race])
        ethnicity = int(patients.ethnicity[i])
        person["ethnicity_concept_id"].append((38003563, 38003564, 0)[ethnicity])
        person["ethnicity_source_value"].append(ETHNICITIES[ethnicity])
        person["location_id"].append(100 + int(patients.borough[i]))
        if death[i]:
            dead["person_id"].append(base + i + 1)
            dead["death_datetime"].append(int(death[i]))
            dead["death_type_concept_id"].append(32817)
    if not dead:
        for key in ("person_id", "death_datetime", "death_type_concept_id"):
            dead[key] = []


def _add_visit(state: _State, person: int, concept: int, start: int, end: int, site: int, provider: int, kind: str | None,
               source: str | None, target: str | None) -> int:
    visits = state.tables["visit_occurrence"]
    visit = state.job.chunk * VISIT_STRIDE + len(visits["visit_occurrence_id"]) + 1
    is_open = end >= END
    visits["visit_occurrence_id"].append(visit)
    visits["person_id"].append(person)
    visits["visit_concept_id"].append(concept)
    visits["visit_start_datetime"].append(start)
    visits["visit_end_datetime"].append(None if is_open else end)
    visits["visit_type_concept_id"].append(32817)
    visits["provider_id"].append(provider)
    visits["care_site_id"].append(site)
    visits["visit_source_value"].append(kind)
    visits["admitted_from_source_value"].append(source)
    visits["discharged_to_source_value"].append(None if is_open else target)
    return visit


def _add_note(state: _State, person: int, visit: int, kind: str, author: Provider, written: int, signed: int | None,
              text: str) -> None:
    if written >= END:
        return
    notes = state.tables["note"]
    notes["note_id"].append(state.job.chunk * NOTE_STRIDE + len(notes["note_id"]) + 1)
    notes["person_id"].append(person)
    notes["note_datetime"].append(written)
    notes["note_signed_datetime"].append(None if signed is None or signed >= END else signed)
    notes["note_type_concept_id"].append(32817)
    notes["note_class_concept_id"].append(0)
    notes["note_title"].append(kind)
    notes["note_text"].append(text)
    notes["encoding_concept_id"].append(32678)
    notes["language_concept_id"].append(4180186)
    notes["provider_id"].append(author.provider_id)
    notes["visit_occurrence_id"].append(visit)
    notes["note_source_value"].append(_CATEGORY.get(kind, "hospital"))


def _add_codes(state: _State, person: int, visits: tuple[int, ...], codes: list[str], vocabulary: str, at: int) -> None:
    rows = state.tables["condition_occurrence"]
    concepts = frame_of(state.job.hospital).concepts
    for visit in visits:
        for position, code in enumerate(codes, start=1):
            rows["condition_occurrence_id"].append(
                state.job.chunk * CODE_STRIDE + len(rows["condition_occurrence_id"]) + 1)
            rows["person_id"].append(person)
            rows["condition_concept_id"].append(0)
            rows["condition_start_datetime"].append(at)
            rows["condition_type_concept_id"].append(32817)
            rows["condition_status_concept_id"].append(32902 if position == 1 else 32908)
            rows["condition_status_source_value"].append(str(position))
            rows["visit_occurrence_id"].append(visit)
            rows["condition_source_value"].append(code)
            rows["condition_source_concept_id"].append(concepts[(vocabulary, code)])


def _reseed(state: _State, patient: int, number: int, kind: int) -> Random:
    state.rng.seed((state.text_seed + patient * 1_000_003 + number * 8_191 + kind * 131) & 0xFFFFFFFFFFFFFFFF)
    return state.rng


def _style(provider: Provider, year: float, hospital: str) -> Style:
    if hospital != "main":
        return writing.style_of(provider.style, (0.5, 0.3, 0.2), HOSPITALS[hospital].styles)
    era = 0 if year < 2016 else 1 if year < 2021 else 2
    return writing.style_of(provider.style, STYLE_SHARE[era], HOSPITALS[hospital].styles)


def _add_stays(state: _State, patients: Patients, stays: Stays, rng: np.random.Generator) -> None:
    admission, final = AdmissionChart(stays, patients), DischargeChart(stays)
    order = np.lexsort((stays.admit, stays.patient)).tolist()
    n = len(stays)
    draws = rng.random((n, 12)).tolist()
    coded = stays.outcomes["coded"].tolist()
    uncoded = stays.outcomes["uncoded"].tolist()
    plain_coded = (stays.facts["plain"] & (rng.random(stays.facts["plain"].shape) < 0.7)).tolist()
    facility = (rng.random(len(patients)) * len(FACILITIES[state.job.hospital])).astype(int).tolist()
    died = stays.outcomes["died"].tolist()
    claims = stays.outcomes["claim_status"].tolist()
    unclaimed = stays.outcomes["unclaimed"].tolist()
    service = stays.facts["service"].tolist()
    years = stays.facts["year"].tolist()
    frame = frame_of(state.job.hospital)
    for i in order:
        patient, number = int(stays.patient[i]), int(stays.number[i])
        person = state.job.chunk * PATIENTS + patient + 1
        admit, discharge = int(stays.admit[i]), int(stays.discharge[i])
        site = frame.site_of[(facility[patient], SERVICES[service[i]])]
        authors = frame.authors[site]
        author = authors[int(draws[i][0] * len(authors))]
        reason = REASONS[admission.reason[i]]
        place = DISPOSITIONS[final.disposition[i]]
        split = draws[i][1] < TRANSFER_SHARE and discharge - admit > 2 * MINUTES
        came = "home" if draws[i][2] < 0.85 else "outside hospital" if draws[i][2] < 0.92 else "skilled nursing facility"
        leaves = admit + int((discharge - admit) * (0.3 + 0.4 * draws[i][3])) if split else discharge
        if reason.kind == "newborn":
            came = "born here"
        visits = (_add_visit(state, person, _INPATIENT, admit, leaves, site, author.provider_id, reason.kind, came,
                             "Transfer" if split else place),)
        if split and leaves + 240 < END:
            other = frame.site_of[((facility[patient] + 1) % len(FACILITIES[state.job.hospital]), SERVICES[service[i]])]
            visits += (_add_visit(state, person, _INPATIENT, leaves + 60 + int(180 * draws[i][4]), discharge, other,
                                  frame.authors[other][0].provider_id, reason.kind, "outside hospital", place),)
        _add_truth(state, visits, stays, i, died[i])
        _add_stay_notes(state, admission, final, i, patient, number, person, visits, author, authors, admit, discharge,
                        died[i], _style(author, years[i], state.job.hospital))
        if discharge < END and not uncoded[i]:
            vocabulary = "ICD9CM" if discharge < ICD10_FROM else "ICD10CM"
            codes = _codes(reason.icd9 if vocabulary == "ICD9CM" else reason.icd10, coded[i], plain_coded[i], vocabulary,
                           patient)
            _add_codes(state, person, visits, codes, vocabulary,
                       min(discharge + int(MINUTES * (1 + 9 * draws[i][5])), END - 1))
        if discharge < END and not unclaimed[i]:
            settled = discharge + int(MINUTES * (10 + 50 * draws[i][6]))
            table = state.tables["claim"]
            table["claim_id"].append(state.job.chunk * VISIT_STRIDE + len(table["claim_id"]) + 1)
            table["visit_occurrence_id"].append(visits[0])
            table["payer"].append(PAYERS[admission.payer[i]])
            table["claim_status"].append(CLAIM_STATUS[3] if settled >= END else CLAIM_STATUS[claims[i]])
            table["status_datetime"].append(min(settled, END - 1))


def _codes(principal: str, coded: list[bool], plain: list[bool], vocabulary: str, patient: int) -> list[str]:
    codes = [principal]
    for table, flags in ((CHARLSON, coded), (PLAIN, plain)):
        for k, condition in enumerate(table):
            if flags[k]:
                options = condition.icd9 if vocabulary == "ICD9CM" else condition.icd10
                codes.append(options[(patient + k) % len(options)])
    return list(dict.fromkeys(codes))


def _add_truth(state: _State, visits: tuple[int, ...], stays: Stays, i: int, died: bool) -> None:
    rows = state.tables["truth"]
    for visit in visits:
        for task in ("readmission", "mortality", "los", "cci", "denial"):
            if task == "readmission" and died:
                continue
            p = stays.truths[task][i]
            values = [float(x) for x in p] if p.ndim else [1.0 - float(p), float(p)]
            rows["task"].append(task)
            rows["encounter_id"].append(str(visit))
            for k in range(5):
                rows[f"p_{k}"].append(values[k] if k < len(values) else None)


def _add_stay_notes(state: _State, admission: AdmissionChart, final: DischargeChart, i: int, patient: int, number: int,
                    person: int, visits: tuple[int, ...], author: Provider, authors: tuple[Provider, ...], admit: int,
                    discharge: int, died: bool, style: Style) -> None:
    job, words = state.job, state.words
    rng = _reseed(state, patient, number, 0)
    if rng.random() < 0.975:
        delay = min(max(int(rng.lognormvariate(4.8, 0.5)), 25), 330)
        signed: int | None = admit + delay
        odd = rng.random()
        if odd < 0.006:
            signed = admit + int(MINUTES * (5.5 + 4 * rng.random()))
        elif odd < 0.01:
            signed = None
        text = writing.finish(rng, write_hp(admission, i, words, style, author.habit, rng, job.note_length))
        _add_note(state, person, visits[0], "H&P", author, admit + delay // 3, signed, text)
    rng = _reseed(state, patient, number, 2)
    days = (discharge - admit) // MINUTES
    for k in range(min(int(rng.random() * 3.6), days)):
        at = admit + MINUTES * (k + 1) + int(rng.random() * 600) - 300
        writer = authors[int(rng.random() * len(authors))]
        text = writing.finish(rng, notes_other.write_progress(admission, i, k + 2, words, style, writer.habit, rng,
                                                              job.note_length))
        if at < discharge:
            _add_note(state, person, visits[0], "progress", writer, at, at + 30 + int(rng.random() * 120), text)
    rng = _reseed(state, patient, number, 3)
    frame = frame_of(job.hospital)
    for kind, mean in (("radiology", 0.85), ("pathology", 0.14)):
        for _ in range(int(mean) + (rng.random() < mean % 1)):
            at = admit + int(rng.random() * (discharge - admit))
            experts = frame.authors[frame.site_of[(0, kind)]]
            expert = experts[int(rng.random() * len(experts))]
            lines = (notes_other.write_radiology(admission.reason[i], words, rng, job.note_length)
                     if kind == "radiology" else notes_other.write_pathology(rng, job.note_length))
            _add_note(state, person, visits[0], kind, expert, at, at + 60 + int(rng.random() * 600),
                      writing.finish(rng, lines))
    if discharge >= END:
        return
    rng = _reseed(state, patient, number, 1)
    if rng.random() < 0.97:
        writer = author if rng.random() < 0.7 else authors[int(rng.random() * len(authors))]
        written = discharge - 30 - int(rng.random() * 200)
        signed = discharge - 20 + int(rng.random() * 1500)
        if died:
            lines = death_summary(admission, i, words, style, writer.habit, rng)
        else:
            lines = write_discharge(admission, final, i, words, style, writer.habit, rng, job.note_length)
        _add_note(state, person, visits[-1], "discharge summary", writer, written, signed, writing.finish(rng, lines))


def _add_other_visits(state: _State, patients: Patients, stays: Stays, death: Ints, rng: np.random.Generator) -> None:
    """Emergency and clinic visits: no H&P, codes of what the patient has, now and then an image or a biopsy."""
    counts = rng.poisson(1.0, len(patients))
    who = np.repeat(np.arange(len(patients)), counts)
    at = START + (rng.random(len(who)) * (END - START - 3 * MINUTES)).astype(np.int64)
    alive = (at > patients.birth[who]) & ((death[who] == 0) | (at < death[who] - MINUTES))
    for k in range(len(stays)):
        near = (who == stays.patient[k]) & (at > stays.admit[k] - 2 * MINUTES) & (at < stays.discharge[k] + 2 * MINUTES)
        alive &= ~near
    who, at = who[alive], at[alive]
    age: Array = (at - patients.birth[who]) / (365.25 * MINUTES)
    hospital = HOSPITALS[state.job.hospital]
    chronic = present_conditions(CHARLSON, patients.thresholds[who], age, patients.frailty[who], hospital.condition_tilt)
    plain = present_conditions(PLAIN, patients.plain_thresholds[who], age, patients.frailty[who], 0.0)
    chronic &= rng.random(chronic.shape) < 0.6
    plain &= rng.random(plain.shape) < 0.6
    draws = rng.random((len(who), 8)).tolist()
    frame = frame_of(state.job.hospital)
    for k, patient in enumerate(who.tolist()):
        person = state.job.chunk * PATIENTS + patient + 1
        d, start = draws[k], int(at[k])
        emergency = d[0] < 0.4
        site = frame.site_of[(int(d[1] * len(FACILITIES[state.job.hospital])), "emergency" if emergency else "clinic")]
        author = frame.authors[site][int(d[2] * len(frame.authors[site]))]
        end = start + (60 + int(420 * d[3]) if emergency else 30)
        visit = _add_visit(state, person, _EMERGENCY if emergency else _OUTPATIENT, start, end, site, author.provider_id,
                           None, None, "Home")
        reason = int(d[4] * len(REASONS))
        while REASONS[reason].sex or REASONS[reason].service in ("newborn", "pediatrics"):
            reason = (reason + 7) % len(REASONS)
        vocabulary = "ICD9CM" if end < ICD10_FROM else "ICD10CM"
        codes = _codes(REASONS[0].icd9 if vocabulary == "ICD9CM" else REASONS[0].icd10, chronic[k].tolist(),
                       plain[k].tolist(), vocabulary, patient)
        _add_codes(state, person, (visit,), codes[1:] or codes, vocabulary, min(end + 2 * MINUTES, END - 1))
        rng_text = _reseed(state, patient, 60 + k, 4)
        kind = "radiology" if d[5] < 0.35 else "pathology" if d[5] < 0.5 else None
        if kind is not None:
            experts = frame.authors[frame.site_of[(0, kind)]]
            lines = (notes_other.write_radiology(reason, state.words, rng_text, state.job.note_length)
                     if kind == "radiology" else notes_other.write_pathology(rng_text, state.job.note_length))
            _add_note(state, person, visit, kind, experts[int(d[6] * len(experts))], end + 20, end + 200,
                      writing.finish(rng_text, lines))


def borough_locations() -> list[tuple[int, str]]:
    """Location ids of the boroughs, as persons name them."""
    return [(100 + k, name) for k, name in enumerate(BOROUGHS)]
