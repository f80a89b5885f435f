"""One chunk of patients, from seed to Arrow tables: the unit of work of a worker process.

A chunk depends on (seed, chunk number) alone, so the content is the same whatever the number of workers. Within a
chunk separate random streams (facts, outcomes, words) keep a changed outcome from moving what was written before it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lang1.simulate.admission import reasons_where
from lang1.simulate.course import Stays, simulate_stays
from lang1.simulate.population import (
    END,
    ETHNICITIES,
    HOSPITALS,
    MINUTES,
    RACES,
    START,
    Bools,
    Ints,
    Patients,
    draw_patients,
    present_conditions,
)
from lang1.simulate.rows import EMERGENCY, OUTPATIENT, Job, Rows, chronic_codes, vocabulary_at
from lang1.simulate.sites import FACILITIES
from lang1.simulate.stay_rows import StayWriter, add_report
from lang1.simulate.tables import CHARLSON, PLAIN, REASONS

OTHER_CODED = 0.6
"""probability that an emergency or clinic visit codes a condition that is present"""


def simulate_chunk(job: Job) -> dict[str, pa.Table]:
    """Tables of one chunk: person, visit_occurrence, condition_occurrence, note, death, claim, truth."""
    streams = np.random.SeedSequence([job.seed, job.chunk]).spawn(5)
    people, facts, outcomes, rest = (np.random.Generator(np.random.Philox(stream)) for stream in streams[:4])
    hospital = HOSPITALS[job.hospital]
    patients = draw_patients(job.patients, hospital, people)
    stays, death = simulate_stays(patients, hospital, facts, outcomes)
    rows = Rows(job, int(streams[4].generate_state(1, np.uint64)[0]))
    _add_people(rows, patients, death)
    StayWriter(rows, patients, stays, rest).write()
    _add_other_visits(rows, patients, stays, death, rest)
    return rows.arrow()


def _add_people(rows: Rows, patients: Patients, death: Ints) -> None:
    births = patients.birth.astype("datetime64[m]").tolist()
    for i, birth in enumerate(births):
        race, ethnicity = int(patients.race[i]), int(patients.ethnicity[i])
        rows.add(
            "person",
            person_id=rows.person_id(i),
            person_source_value=f"P{rows.person_id(i):08d}",
            gender_concept_id=8532 if patients.female[i] else 8507,
            gender_source_value="female" if patients.female[i] else "male",
            year_of_birth=birth.year,
            month_of_birth=birth.month,
            day_of_birth=birth.day,
            birth_datetime=int(patients.birth[i]),
            race_concept_id=(8527, 8516, 8515, 0, 0)[race],
            race_source_value=RACES[race],
            ethnicity_concept_id=(38003563, 38003564, 0)[ethnicity],
            ethnicity_source_value=ETHNICITIES[ethnicity],
            location_id=100 + int(patients.borough[i]),
        )
        if death[i]:
            rows.add("death", person_id=rows.person_id(i), death_datetime=int(death[i]), death_type_concept_id=32817)


def _free_times(patients: Patients, stays: Stays, death: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Times of emergency and clinic visits: of the living, and not within two days of a stay."""
    who = np.repeat(np.arange(len(patients)), rng.poisson(1.0, len(patients)))
    at = START + (rng.random(len(who)) * (END - START - 3 * MINUTES)).astype(np.int64)
    free: Bools = (at > patients.birth[who]) & ((death[who] == 0) | (at < death[who] - MINUTES))
    order = np.argsort(stays.patient, kind="stable")
    bounds = np.searchsorted(stays.patient[order], np.arange(len(patients) + 1))
    for k, patient in enumerate(who.tolist()):
        own = order[bounds[patient] : bounds[patient + 1]]
        near = (at[k] > stays.admit[own] - 2 * MINUTES) & (at[k] < stays.discharge[own] + 2 * MINUTES)
        free[k] &= not near.any()
    return who[free], at[free]


def _add_other_visits(rows: Rows, patients: Patients, stays: Stays, death: Ints, rng: np.random.Generator) -> None:
    """Emergency and clinic visits: no H&P, codes of what the patient has, now and then an image or a biopsy."""
    who, at = _free_times(patients, stays, death, rng)
    age = (at - patients.birth[who]) / (365.25 * MINUTES)
    frailty, tilt = patients.frailty[who], HOSPITALS[rows.job.hospital].condition_tilt
    chronic = present_conditions(CHARLSON, patients.thresholds[who], age, frailty, tilt)
    plain = present_conditions(PLAIN, patients.plain_thresholds[who], age, frailty, 0.0)
    chronic &= rng.random(chronic.shape) < OTHER_CODED
    plain &= rng.random(plain.shape) < OTHER_CODED
    draws = rng.random((len(who), 7)).tolist()
    anytime = reasons_where(sex="", service=("medicine", "cardiology", "surgery", "orthopedics", "neurology"))
    reasons = [r for r in anytime if REASONS[r].name != "covid"]  # has years of its own
    for k, patient in enumerate(who.tolist()):
        person, d, start = rows.person_id(patient), draws[k], int(at[k])
        emergency = d[0] < 0.4
        place = (int(d[1] * len(FACILITIES[rows.job.hospital])), "emergency" if emergency else "clinic")
        site = rows.frame.site_of[place]
        author = rows.frame.authors[site][int(d[2] * len(rows.frame.authors[site]))]
        end = start + (60 + int(420 * d[3]) if emergency else 30)
        visit = rows.add_visit(person, EMERGENCY if emergency else OUTPATIENT, start, end, site, author.provider_id,
                               target="Home")  # fmt: skip
        vocabulary = vocabulary_at(end)
        codes = chronic_codes(chronic[k].tolist(), plain[k].tolist(), vocabulary, patient)
        rows.add_codes(person, visit, codes, vocabulary, min(end + 2 * MINUTES, END - 1))
        kind = "radiology" if d[5] < 0.35 else "pathology" if d[5] < 0.5 else None
        if kind is not None:
            text_rng = rows.text_rng(patient, 64 + k, 4)
            add_report(rows, text_rng, kind, person, visit, reasons[int(d[4] * len(reasons))], end + 20)
