"""Source fhir: what becomes of each resource. Small exports in the shape of US Core, one decision a test."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from lang1.errors import ConfigError

from .exports import (
    ICD9,
    ICD10,
    SNOMED,
    base64_of,
    coded,
    composition,
    condition,
    document,
    encounter,
    export,
    extracted,
    patient,
    reference,
    rejected,
    row_of,
    rows,
)

RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
ETHNICITY = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity"


def us_core(url: str, *codes: str) -> dict[str, Any]:
    return {"url": url, "extension": [{"url": "ombCategory", "valueCoding": {"code": code}} for code in codes]}


# --- patients --------------------------------------------------------------------------------------------------


def test_a_patient_of_us_core(tmp_path: Path, out: Path) -> None:
    source = patient(
        extension=[us_core(RACE, "2054-5"), us_core(ETHNICITY, "2186-5")],
        address=[{"use": "old", "district": "Queens"}, {"use": "home", "district": "Kings", "city": "Brooklyn"}],
        deceasedDateTime="2021-03-04T05:06:07-05:00",
    )
    assert row_of(export(tmp_path / "x", source), out, "patients") == {
        "patient_id": "p1", "birth_date": date(1950, 3, 4), "sex": "female", "race": "Black",
        "ethnicity": "Not Hispanic", "borough": "Kings", "death_date": date(2021, 3, 4),
    }  # fmt: skip


def test_what_a_patient_may_lack(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x", patient("p1", address=[{"city": "Newton"}], deceasedBoolean=True, birthDate="1950"),
        patient("p2", extension=[us_core(RACE, "2106-3", "2028-9")], deceasedBoolean=False),
    )  # fmt: skip
    manifest = extracted(folder, out)
    one, two = rows(out, "patients")
    assert (one["borough"], one["birth_date"], one["death_date"]) == ("Newton", date(1950, 1, 1), None)
    assert (two["race"], two["borough"], two["ethnicity"]) == ("Two or more", None, None)
    assert manifest["facts"]["flags"]["patients"] == {"deceased, no day": 1}


# --- references and times ---------------------------------------------------------------------------------------


def test_a_reference_names_an_id_however_it_is_written(tmp_path: Path, out: Path) -> None:
    good = ["Patient/p1", "https://ehr.example.org/fhir/R4/Patient/p1", "Patient/p1/_history/3", "urn:uuid:p1"]
    bad = ["Group/p1", "p1", "#p1", "", "Patient/", "OtherPatient/p1"]
    stays = [encounter(f"e{i}", subject={"reference": written}) for i, written in enumerate([*good, *bad])]
    extracted(export(tmp_path / "x", *stays), out)
    assert [row["encounter_id"] for row in rows(out, "encounters")] == ["e0", "e1", "e2", "e3"]
    assert {row["rule"] for row in rejected(out, "encounters")} == {"missing patient_id"}


def test_a_time_is_the_clock_as_written_or_that_of_the_zone(tmp_path: Path, out: Path) -> None:
    as_written = {
        "2020-02-01T10:00:00-05:00": datetime(2020, 2, 1, 10),
        "2020-02-01T10:00:00.123456789-05:00": datetime(2020, 2, 1, 10, 0, 0, 123456),
        "2020-02-01T15:00:00Z": datetime(2020, 2, 1, 15),
        "2020-02-01T10:00Z": datetime(2020, 2, 1, 10),
        "2020-02-01": datetime(2020, 2, 1),
        "2020-02": datetime(2020, 2, 1),
        "2020": datetime(2020, 1, 1),
    }
    in_new_york = {
        "2020-02-01T15:00:00Z": datetime(2020, 2, 1, 10),
        "2020-07-01T15:00:00Z": datetime(2020, 7, 1, 11),
        "2020-02-01T23:00:00.5-08:00": datetime(2020, 2, 2, 2, 0, 0, 500000),
        "2020-02-01T10:00:00": datetime(2020, 2, 1, 10),
        "2020-02": datetime(2020, 2, 1),
    }
    for place, (zone, cases) in enumerate({None: as_written, "America/New_York": in_new_york}.items()):
        stays = [encounter(f"e{i}", period={"start": written}) for i, written in enumerate(cases)]
        extracted(export(tmp_path / f"x{place}", *stays), tmp_path / f"out{place}", time_zone=zone)
        assert [row["admit_time"] for row in rows(tmp_path / f"out{place}", "encounters")] == [*cases.values()]


def test_a_day_alone_ends_with_its_last_second(tmp_path: Path, out: Path) -> None:
    ends = {"2020-02-04": datetime(2020, 2, 4, 23, 59, 59), "2020-02": datetime(2020, 2, 29, 23, 59, 59), None: None}
    stays = [encounter(f"e{i}", period={"start": "2020-02-01", "end": end}) for i, end in enumerate(ends)]
    extracted(export(tmp_path / "x", *stays), out)
    assert [row["discharge_time"] for row in rows(out, "encounters")] == [*ends.values()]


def test_a_time_that_is_none_goes_to_the_rejects_as_it_came(tmp_path: Path, out: Path) -> None:
    bad = {"start": "2020-02-30T10:00:00Z"}
    folder = export(
        tmp_path / "x", encounter("e0", period=bad), encounter("e1"), encounter("e2", period={"start": "0001-01-01"})
    )
    extracted(folder, out)
    found = [(row["rule"], row["admit_time"]) for row in rejected(out, "encounters")]
    assert found == [
        ("unreadable admit_time", "2020-02-30 10:00:00"), ("impossible date in admit_time", "0001-01-01 00:00:00"),
    ]  # fmt: skip


def test_the_manifest_says_how_times_were_written(tmp_path: Path, out: Path) -> None:
    folder = export(tmp_path / "x", encounter("e1"), encounter("e2", period={"start": "2020-05-01T15:00:00Z"}))
    facts = extracted(folder, out)["facts"]
    assert facts["time_zone"] == "as written" and facts["encounter_time_offsets"] == {"-05:00": 1, "Z": 1}
    assert facts["flags"]["encounters"] == {"times in UTC, as written": 1}
    facts = extracted(folder, tmp_path / "again", time_zone="America/New_York")["facts"]
    assert facts["time_zone"] == "America/New_York" and "encounters" not in facts["flags"]


def test_an_unknown_time_zone_is_refused(tmp_path: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match=r"extract\.time_zone: no time zone New York; a name such as"):
        extracted(export(tmp_path / "x"), out, time_zone="New York")


# --- encounters -------------------------------------------------------------------------------------------------


def test_the_class_of_an_encounter(tmp_path: Path, out: Path) -> None:
    classes = [
        ("IMP", None, "inpatient"), ("ACUTE", None, "inpatient"), ("NONAC", None, "inpatient"),
        ("OBSENC", None, "outpatient"), ("EMER", None, "emergency"), ("AMB", None, "outpatient"),
        ("5", "Appointment", "outpatient"), ("1", "Hospital Inpatient", "inpatient"), ("7", "Emergency", "emergency"),
    ]  # fmt: skip
    stays = [encounter(f"e{i}", **{"class": {"code": c, "display": d}}) for i, (c, d, _) in enumerate(classes)]
    extracted(export(tmp_path / "x", *stays), out)
    assert [row["encounter_class"] for row in rows(out, "encounters")] == [expected for _, _, expected in classes]


def test_a_class_that_says_nothing_is_kept_aside(tmp_path: Path, out: Path) -> None:
    facts = extracted(export(tmp_path / "x", encounter("e0", **{"class": {"code": "17"}}), encounter()), out)["facts"]
    assert facts["rejects"]["encounters"] == {"missing encounter_class": 1}
    assert facts["encounter_class_codes"] == {"17": 1, "IMP": 1}


def test_where_a_patient_went(tmp_path: Path, out: Path) -> None:
    hl7 = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
    dispositions: list[tuple[dict[str, Any], str]] = [
        (coded("exp", hl7), "Expired"),
        (coded("20", "https://www.nubc.org/CodeSystem/PatDischargeStatus", "Expired"), "Expired"),
        ({"text": "Patient deceased"}, "Expired"),
        (coded("home", hl7, "Home"), "Home"),
        ({"text": "Skilled nursing facility"}, "Skilled nursing facility"),
    ]
    stays = [
        encounter(f"e{i}", hospitalization={"dischargeDisposition": gone}) for i, (gone, _) in enumerate(dispositions)
    ]
    extracted(export(tmp_path / "x", *stays), out)
    assert [row["discharge_disposition"] for row in rows(out, "encounters")] == [word for _, word in dispositions]


def test_ward_facility_service_and_priority(tmp_path: Path, out: Path) -> None:
    def place(name: str, kind: str, **fields: Any) -> dict[str, Any]:
        return {"resourceType": "Location", "id": name, "name": name, "physicalType": coded(kind)} | fields

    folder = export(
        tmp_path / "x",
        encounter(
            serviceType={"text": "Cardiology"}, priority=coded("EL"),
            serviceProvider=reference("Organization", "dept"),
            location=[
                {"location": reference("Location", "ICU"), "period": {"start": "2020-02-03T10:00:00-05:00"}},
                {"location": reference("Location", "Bed 3"), "period": {"start": "2020-02-01T10:00:00-05:00"}},
            ],
        ),
        place("Bed 3", "bd", partOf=reference("Location", "Room 1")), place("ICU", "wa"),
        place("Room 1", "ro", partOf=reference("Location", "4 West")), place("4 West", "wa"),
        {"resourceType": "Organization", "id": "dept", "name": "Heart", "partOf": reference("Organization", "main")},
        {"resourceType": "Organization", "id": "main", "name": "Main Hospital"},
    )  # fmt: skip
    row = row_of(folder, out, "encounters")
    assert (row["department"], row["facility"]) == ("4 West", "Main Hospital")  # the first ward, whatever the order
    assert (row["service"], row["admission_type"]) == ("cardiology", "elective")


def test_displays_stand_in_for_what_the_export_lacks(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x",
        encounter(
            location=[{"location": {"reference": "Location/none", "display": "EMH 4 WEST"}}],
            serviceProvider={"display": "Epic Medical Hospital"}, hospitalization={"admitSource": coded("born")},
        ),
    )  # fmt: skip
    row = row_of(folder, out, "encounters")
    assert (row["department"], row["facility"]) == ("EMH 4 WEST", "Epic Medical Hospital")
    assert row["admission_type"] == "newborn"


def test_what_never_took_place_is_kept_aside(tmp_path: Path, out: Path) -> None:
    stages = ["finished", "in-progress", "planned", "cancelled", "entered-in-error"]
    facts = extracted(export(tmp_path / "x", *[encounter(f"e{s}", status=s) for s in stages]), out)["facts"]
    assert facts["rejects"]["encounters"] == {
        "encounter cancelled": 1, "encounter planned": 1, "entered in error": 1,
    }  # fmt: skip
    assert len(rows(out, "encounters")) == 2


def test_the_primary_diagnosis_is_the_principal_one(tmp_path: Path, out: Path) -> None:
    def listed(name: str, use: str, rank: int) -> dict[str, Any]:
        return {"condition": reference("Condition", name), "use": coded(use), "rank": rank}

    folder = export(
        tmp_path / "x",
        encounter("e1", diagnosis=[listed("k1", "AD", 1), listed("k2", "CM", 1), listed("k3", "DD", 1)]),
        encounter("e2", diagnosis=[listed("k3", "DD", 1), listed("k2", "principal", 3)]),
        encounter("e3", diagnosis=[listed("k4", "DD", 1), listed("k2", "CM", 2)]),
        condition("k1", "R07.9"), condition("k2", "I10"), condition("k3", "I21.4"), condition("k4", "22298006", SNOMED),
    )  # fmt: skip
    extracted(folder, out)
    assert [row["primary_diagnosis"] for row in rows(out, "encounters")] == ["I21.4", "I10", None]


# --- diagnoses --------------------------------------------------------------------------------------------------


def test_a_stay_has_the_conditions_that_it_lists_and_those_that_name_it(tmp_path: Path, out: Path) -> None:
    problem = [coded("problem-list-item")]
    folder = export(
        tmp_path / "x",
        encounter(
            "e1",
            diagnosis=[
                {"condition": reference("Condition", "listed"), "use": coded("DD"), "rank": 2},
                {"condition": reference("Condition", "twice"), "rank": 3},
                {"condition": reference("Condition", "main"), "use": {"text": "Principal"}, "rank": 9},
                {"condition": reference("Condition", "lost"), "rank": 4},
            ],
        ),
        encounter("e2", period={"start": "2020-05-01"}),
        condition("listed", "E11.9", category=problem, encounter=reference("Encounter", "e2")),
        condition("twice", "I10", recordedDate="2020-02-02T10:00:00-05:00"),
        condition("main", "I21.4"),
        condition("named", "N17.9"),
        condition("problem", "J44.9", category=problem),
        condition("away", "K52.9", encounter=None),
    )  # fmt: skip
    facts = extracted(folder, out)["facts"]
    found = {row["code"]: (row["encounter_id"], row["position"]) for row in rows(out, "diagnoses")}
    assert found == {
        "E11.9": ("e1", 2), "I10": ("e1", 3), "I21.4": ("e1", 1), "N17.9": ("e1", None),
        "J44.9": (None, None), "K52.9": (None, None),
    }  # fmt: skip
    assert len(rows(out, "diagnoses")) == 6
    assert facts["rejects"]["diagnoses"] == {"no such Condition in the export": 1}
    [timed] = [row for row in rows(out, "diagnoses") if row["code"] == "I10"]
    assert timed["coded_time"] == datetime(2020, 2, 2, 10)


def test_of_several_codings_the_icd_in_force_counts(tmp_path: Path, out: Path) -> None:
    cases: list[tuple[list[tuple[str | None, str]], str, list[tuple[str, str]]]] = [
        ([(SNOMED, "84114007"), (ICD9, "428.0"), (ICD10, "I50.9")], "2020-02-04", [("ICD10CM", "I50.9")]),
        ([(SNOMED, "84114007"), (ICD9, "428.0"), (ICD10, "I50.9")], "2014-02-04", [("ICD9CM", "428.0")]),
        ([(ICD9, "428.0")], "2020-02-04", [("ICD9CM", "428.0")]),
        ([("urn:oid:2.16.840.1.113883.6.90", "E11.40"), (ICD10, "G63"), (ICD10, "G63")], "2020-02-04",
         [("ICD10CM", "E11.40"), ("ICD10CM", "G63")]),
        ([(SNOMED, "84114007")], "2020-02-04", [("SNOMED", "84114007")]),
        ([("urn:oid:1.2.3", "V99")], "2020-02-04", [("urn:oid:1.2.3", "V99")]),
        ([(None, "V99")], "2020-02-04", [("unknown", "V99")]),
    ]  # fmt: skip
    resources = []
    for i, (codings, ended, _) in enumerate(cases):
        coding = [{"code": code} | ({"system": system} if system else {}) for system, code in codings]
        resources += [
            encounter(f"e{i}", period={"start": ended, "end": ended}),
            condition(f"k{i}", encounter=reference("Encounter", f"e{i}")) | {"code": {"coding": coding}},
        ]
    manifest = extracted(export(tmp_path / "x", *resources), out)
    for i, (_, _, expected) in enumerate(cases):
        found = [r for r in rows(out, "diagnoses") if r["encounter_id"] == f"e{i}"]
        assert sorted((row["code_system"], row["code"]) for row in found) == expected
    assert manifest["facts"]["flags"]["diagnoses"] == {"not ICD: no task reads it": 3}


def test_conditions_in_error_refuted_or_without_a_code_are_kept_aside(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x", condition("k1", verificationStatus=coded("entered-in-error")),
        condition("k2", verificationStatus=coded("refuted")), condition("k3") | {"code": {"text": "a bad heart"}},
        condition("k4", verificationStatus=coded("provisional")),
    )  # fmt: skip
    facts = extracted(folder, out)["facts"]
    assert facts["rejects"]["diagnoses"] == {"entered in error": 1, "missing code": 1, "refuted": 1}
    assert len(rows(out, "diagnoses")) == 1


def test_an_export_without_conditions_or_claims_has_none(tmp_path: Path, out: Path) -> None:
    facts = extracted(export(tmp_path / "x"), out)["facts"]
    assert rows(out, "diagnoses") == [] and facts["absent_tables"] == ["claims"]


# --- notes: type, author, clock ---------------------------------------------------------------------------------


def test_the_type_and_category_of_a_note(tmp_path: Path, out: Path) -> None:
    epic = "urn:oid:1.2.840.114350"
    kinds: list[tuple[dict[str, Any] | None, str, str]] = [
        (coded("34117-2"), "hospital", "H&P"), (coded("18842-5"), "hospital", "discharge summary"),
        (coded("11506-3"), "hospital", "progress"), (coded("34745-0"), "hospital", "nursing discharge summary"),
        (coded("78390-2"), "hospital", "nursing admission"), (coded("18748-4"), "radiology", "radiology"),
        (coded("11526-1"), "pathology", "pathology"), ({"text": "ED H&P"}, "hospital", "H&P"),
        ({"text": "Hospital Discharge Summary"}, "hospital", "discharge summary"),
        ({"text": "Nursing discharge summary"}, "hospital", "Nursing discharge summary"),
        (coded("4", epic, "Telephone Encounter"), "hospital", "Telephone Encounter"),
        ({"coding": [{"system": epic, "code": "1"}, *coded("18842-5")["coding"]]}, "hospital", "discharge summary"),
        (None, "hospital", "unknown"),
    ]  # fmt: skip
    notes = [document(f"d{i:02}", type=kind) for i, (kind, _, _) in enumerate(kinds)]
    extracted(export(tmp_path / "x", *notes, document("e", type={"text": "XR"}, category=[coded("LP29684-5")])), out)
    found = [(row["category"], row["note_type"]) for row in rows(out, "notes")]
    assert found == [*[(category, note_type) for _, category, note_type in kinds], ("radiology", "XR")]


AUTHENTICATED = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-authentication-time"


def test_when_a_document_was_signed(tmp_path: Path, out: Path) -> None:
    date_alone = "no time of signing: the date is the clock"
    at_eleven = [{"url": AUTHENTICATED, "valueDateTime": "2020-02-01T11:00:00-05:00"}]
    cases: list[tuple[dict[str, Any], datetime | None]] = [
        ({}, datetime(2020, 2, 1, 12)),
        ({"extension": at_eleven}, datetime(2020, 2, 1, 11)),
        ({"docStatus": "preliminary"}, None),
        ({"docStatus": "amended", "extension": at_eleven}, datetime(2020, 2, 1, 12)),
        ({"docStatus": None, "date": "2020-02-01"}, datetime(2020, 2, 1, 23, 59, 59)),
    ]
    notes = [document(f"d{i}", **fields) for i, (fields, _) in enumerate(cases)]
    manifest = extracted(export(tmp_path / "x", *notes), out)
    assert [row["signed_time"] for row in rows(out, "notes")] == [signed for _, signed in cases]
    assert manifest["facts"]["flags"]["notes"] == {
        date_alone: 2, "preliminary: unsigned": 1, "amended: signed at its last clock": 1,
    }  # fmt: skip


def test_a_composition_is_signed_by_its_first_attester_and_an_amended_one_counts_from_the_last(
    tmp_path: Path, out: Path
) -> None:
    times = [
        {"mode": "legal", "time": "2020-02-04T23:00:00-05:00"},
        {"mode": "personal", "time": "2020-02-04T21:00:00-05:00"},
    ]
    folder = export(
        tmp_path / "x", composition("c1", attester=times), composition("c2", attester=times, status="amended"),
        composition("c3"), composition("c4", status="preliminary", attester=times),
    )  # fmt: skip
    extracted(folder, out)
    assert {row["note_id"]: row["signed_time"] for row in rows(out, "notes")} == {
        "Composition/c1": datetime(2020, 2, 4, 21), "Composition/c2": datetime(2020, 2, 4, 23),
        "Composition/c3": datetime(2020, 2, 4, 20), "Composition/c4": None,
    }  # fmt: skip


def test_a_note_begins_with_its_context(tmp_path: Path, out: Path) -> None:
    context = {"encounter": [reference("Encounter", "e1")], "period": {"start": "2020-02-01T11:30:00-05:00"}}
    row = row_of(export(tmp_path / "x", document(context=context)), out, "notes")
    assert (row["written_time"], row["signed_time"]) == (datetime(2020, 2, 1, 11, 30), datetime(2020, 2, 1, 12))
    assert (row["note_id"], row["patient_id"], row["encounter_id"]) == ("DocumentReference/d1", "p1", "e1")


def test_notes_in_error_or_superseded_are_kept_aside(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x", document("d1"), document("d2", status="entered-in-error"), document("d3",
        docStatus="entered-in-error"),
        document("d4", status="superseded"), composition("c1", status="entered-in-error"),
    )  # fmt: skip
    facts = extracted(folder, out)["facts"]
    assert facts["rejects"]["notes"] == {"entered in error": 3, "superseded": 1}
    assert all(row["text"] for row in rejected(out, "notes"))


ROLES: list[dict[str, Any]] = [
    {"resourceType": "Practitioner", "id": "a", "qualification": [{"code": coded("RN")}]},
    {"resourceType": "Practitioner", "id": "b", "qualification": [{"code": coded("MD")}]},
    {"resourceType": "Practitioner", "id": "c"},
    {"resourceType": "PractitionerRole", "id": "r1", "practitioner": reference("Practitioner", "b"),
     "code": [coded("390200000X", "http://nucc.org/provider-taxonomy")], "organization": reference("Organization",
     "o")},
    {"resourceType": "PractitionerRole", "id": "a", "practitioner": reference("Practitioner", "c"),
     "code": [{"text": "Attending"}], "organization": {"display": "Surgery"}},
    {"resourceType": "Organization", "id": "o", "name": "Medicine"},
]  # fmt: skip


def test_the_role_of_an_author(tmp_path: Path, out: Path) -> None:
    authors = {
        "Practitioner/a": ("nurse", None), "Practitioner/b": ("resident", "Medicine"),
        "Practitioner/c": ("attending", "Surgery"), "PractitionerRole/r1": ("resident", "Medicine"),
        "PractitionerRole/a": ("attending", "Surgery"), "Device/a": (None, None), "Practitioner/nobody": (None, None),
    }  # fmt: skip
    first = {"reference": "Organization/o"}
    notes = [document(f"d{i}", author=[first, {"reference": author}]) for i, author in enumerate(authors)]
    extracted(export(tmp_path / "x", *notes, *ROLES), out)
    assert [(row["author_role"], row["department"]) for row in rows(out, "notes")] == [*authors.values()]


def test_what_a_resource_contains_is_found_by_its_reference(tmp_path: Path, out: Path) -> None:
    inner = {"resourceType": "PractitionerRole", "id": "me", "code": [{"text": "Hospitalist"}]}
    folder = export(
        tmp_path / "x", document("d1", author=[{"reference": "#me"}], contained=[inner]),
        document("d2", author=[{"reference": "#me"}]),
    )  # fmt: skip
    extracted(folder, out)
    assert [row["author_role"] for row in rows(out, "notes")] == ["hospitalist", None]


# --- one note twice ---------------------------------------------------------------------------------------------


def test_a_note_as_document_and_as_composition_counts_once(tmp_path: Path, out: Path) -> None:
    def both(name: str, of_document: dict[str, Any], **of_composition: Any) -> list[dict[str, Any]]:
        other = [base64_of(f"Summary {name} in other words.")]
        return [
            document(name, **{"type": coded("18842-5"), "content": other} | of_document),
            composition(name, **of_composition),
        ]

    named = {"encounter": [reference("Encounter", "e1")], "related": [reference("Composition", "named")]}
    words = {"content": [base64_of("The very same words, plain.")], "date": "2020-02-04T12:00:00-05:00"}
    folder = export(
        tmp_path / "x",
        *both(
            "number",
            {"masterIdentifier": {"system": "urn:s", "value": "7"}},
            identifier={"system": "urn:s", "value": "7"},
        ),
        *both("named", {"context": named}),
        *both("linked", {"content": [{"attachment": {"url": "Composition/linked"}}, base64_of("x")]}),
        *both("words", words, section=[{"text": {"div": "<div><p>The very <b>same</b> words, plain.</p></div>"}}]),
        *both("apart", {}),
    )
    facts = extracted(folder, out)["facts"]
    assert [row["note_id"] for row in rows(out, "notes")] == [
        *[f"Composition/{name}" for name in ("apart", "linked", "named", "number", "words")], "DocumentReference/apart",
    ]  # fmt: skip
    assert facts["rejects"]["notes"] == {"also a Composition": 4}


def test_the_same_words_on_another_day_or_of_another_patient_are_two_notes(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x", patient("p1"), patient("p2"), encounter("e1"), encounter("e2", subject=reference("Patient",
        "p2")),
        composition("c1"), document("d1", type=coded("18842-5")),
        document("d2", type=coded("18842-5"), date="2020-02-04T12:00:00-05:00", subject=reference("Patient", "p2"),
                 context={"encounter": [reference("Encounter", "e2")]}),
    )  # fmt: skip
    extracted(folder, out)
    assert len(rows(out, "notes")) == 3


def test_your_own_sql_stands_in_for_a_table(tmp_path: Path, out: Path) -> None:
    sql = tmp_path / "sql"
    sql.mkdir()
    (sql / "patients.sql").write_text(
        "SELECT p.id AS patient_id, NULL AS birth_date, NULL AS sex, NULL AS race, NULL AS ethnicity, "
        "p.resource ->> '$.address[0].state' AS borough, NULL AS death_date FROM Patient AS p"
    )
    folder = export(tmp_path / "x", patient(address=[{"state": "NY"}]))
    assert row_of(folder, out, "patients", sql_dir=str(sql))["borough"] == "NY"
