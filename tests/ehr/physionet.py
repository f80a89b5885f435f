"""MIMIC-III and MIMIC-IV folders in the form that PhysioNet ships, for the tests of these sources."""

import csv
import gzip
import io
from collections.abc import Iterable
from pathlib import Path

Row = dict[str, object]

COLUMNS = {
    "PATIENTS": "ROW_ID SUBJECT_ID GENDER DOB DOD DOD_HOSP DOD_SSN EXPIRE_FLAG",
    "ADMISSIONS": "ROW_ID SUBJECT_ID HADM_ID ADMITTIME DISCHTIME DEATHTIME ADMISSION_TYPE ADMISSION_LOCATION "
    "DISCHARGE_LOCATION INSURANCE LANGUAGE RELIGION MARITAL_STATUS ETHNICITY EDREGTIME EDOUTTIME DIAGNOSIS "
    "HOSPITAL_EXPIRE_FLAG HAS_CHARTEVENTS_DATA",
    "DIAGNOSES_ICD": "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
    "SERVICES": "ROW_ID SUBJECT_ID HADM_ID TRANSFERTIME PREV_SERVICE CURR_SERVICE",
    "TRANSFERS": "ROW_ID SUBJECT_ID HADM_ID ICUSTAY_ID DBSOURCE EVENTTYPE PREV_CAREUNIT CURR_CAREUNIT PREV_WARDID "
    "CURR_WARDID INTIME OUTTIME LOS",
    "NOTEEVENTS": "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION CGID ISERROR TEXT",
}
COLUMNS_IV = {
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
    "admission_location discharge_location insurance language marital_status race edregtime edouttime "
    "hospital_expire_flag",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/services": "subject_id hadm_id transfertime prev_service curr_service",
    "hosp/transfers": "subject_id hadm_id transfer_id eventtype careunit intime outtime",
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
    "note/discharge": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
    "note/radiology": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
}

SUMMARY = 'Admission Date:  [**2151-7-16**]\n\nHe said "no pain", and\n1,2,3,"home"\n\n\nDischarge: home, stable.\n'


def mimic3_rows() -> dict[str, list[Row]]:
    """Four patients: one of them over 89, one who dies in the stay, and rows that break a rule."""
    stay = {"INSURANCE": "Medicare", "DIAGNOSIS": "CHEST PAIN", "HAS_CHARTEVENTS_DATA": 1, "HOSPITAL_EXPIRE_FLAG": 0}
    note = {"SUBJECT_ID": 1, "HADM_ID": 100001, "CHARTDATE": "2151-07-16", "TEXT": "Seen and examined, no distress."}
    return {
        "PATIENTS": [
            {"SUBJECT_ID": 1, "GENDER": "M", "DOB": "2100-07-16 00:00:00"},
            {"SUBJECT_ID": 2, "GENDER": "F", "DOB": "1851-03-01 00:00:00", "DOD": "2151-03-09 00:00:00"},
            {"SUBJECT_ID": 3, "GENDER": "F", "DOB": "2151-01-01 00:00:00"},
            {"SUBJECT_ID": 4, "GENDER": "M", "DOB": "2080-01-01 00:00:00", "DOD": "2150-01-03 00:00:00"},
        ],
        "ADMISSIONS": [
            stay | {"SUBJECT_ID": 1, "HADM_ID": 100001, "ADMITTIME": "2151-07-16 14:29:00",
                    "DISCHTIME": "2151-07-19 18:00:00", "ADMISSION_TYPE": "EMERGENCY",
                    "DISCHARGE_LOCATION": "HOME HEALTH CARE", "ETHNICITY": "UNKNOWN/NOT SPECIFIED"},
            stay | {"SUBJECT_ID": 1, "HADM_ID": 100002, "ADMITTIME": "2151-08-01 08:00:00",
                    "DISCHTIME": "2151-08-02 09:00:00", "ADMISSION_TYPE": "ELECTIVE", "DISCHARGE_LOCATION": "HOME",
                    "ETHNICITY": "HISPANIC/LATINO - PUERTO RICAN"},
            stay | {"SUBJECT_ID": 1, "HADM_ID": 100003, "ADMITTIME": "2152-08-01 08:00:00",
                    "DISCHTIME": "2152-08-02 09:00:00", "ADMISSION_TYPE": "URGENT", "DISCHARGE_LOCATION": "HOME",
                    "ETHNICITY": "BLACK/AFRICAN AMERICAN"},
            stay | {"SUBJECT_ID": 2, "HADM_ID": 100004, "ADMITTIME": "2151-03-01 10:00:00",
                    "DISCHTIME": "2151-03-09 11:30:00", "DEATHTIME": "2151-03-09 11:30:00",
                    "ADMISSION_TYPE": "EMERGENCY", "DISCHARGE_LOCATION": "DEAD/EXPIRED", "ETHNICITY": "WHITE - RUSSIAN",
                    "HOSPITAL_EXPIRE_FLAG": 1},
            stay | {"SUBJECT_ID": 3, "HADM_ID": 100005, "ADMITTIME": "2151-01-01 03:00:00",
                    "DISCHTIME": "2151-01-03 12:00:00", "ADMISSION_TYPE": "NEWBORN", "DISCHARGE_LOCATION": "HOME",
                    "ETHNICITY": "ASIAN - CHINESE"},
            # an organ donor, and a stay that ends before it begins
            stay | {"SUBJECT_ID": 4, "HADM_ID": 100006, "ADMITTIME": "2150-01-03 09:00:00",
                    "DISCHTIME": "2150-01-03 15:00:00", "DEATHTIME": "2150-01-03 08:00:00",
                    "ADMISSION_TYPE": "EMERGENCY", "DISCHARGE_LOCATION": "DEAD/EXPIRED", "ETHNICITY": "OTHER",
                    "HOSPITAL_EXPIRE_FLAG": 1},
            stay | {"SUBJECT_ID": 4, "HADM_ID": 100007, "ADMITTIME": "2149-01-03 09:00:00",
                    "DISCHTIME": "2149-01-03 01:00:00", "ADMISSION_TYPE": "EMERGENCY", "DISCHARGE_LOCATION": "HOME"},
        ],
        "DIAGNOSES_ICD": [
            {"SUBJECT_ID": 1, "HADM_ID": 100001, "SEQ_NUM": 1, "ICD9_CODE": "4280"},
            {"SUBJECT_ID": 1, "HADM_ID": 100001, "SEQ_NUM": 2, "ICD9_CODE": "V4582 "},
            {"SUBJECT_ID": 1, "HADM_ID": 100001, "SEQ_NUM": "", "ICD9_CODE": ""},
            {"SUBJECT_ID": 2, "HADM_ID": 100004, "SEQ_NUM": 1, "ICD9_CODE": "0389"},
        ],
        "SERVICES": [
            {"ROW_ID": 9, "SUBJECT_ID": 1, "HADM_ID": 100001, "TRANSFERTIME": "2151-07-17 01:00:00",
             "PREV_SERVICE": "MED", "CURR_SERVICE": "CSURG"},
            {"ROW_ID": 10, "SUBJECT_ID": 1, "HADM_ID": 100001, "TRANSFERTIME": "2151-07-16 14:31:00",
             "CURR_SERVICE": "MED"},
            {"ROW_ID": 11, "SUBJECT_ID": 3, "HADM_ID": 100005, "TRANSFERTIME": "2151-01-01 03:00:00",
             "CURR_SERVICE": "NB"},
        ],
        "TRANSFERS": [
            {"ROW_ID": 7, "SUBJECT_ID": 1, "HADM_ID": 100001, "EVENTTYPE": "transfer", "CURR_CAREUNIT": "MICU",
             "CURR_WARDID": 52, "INTIME": "2151-07-17 00:00:00"},
            {"ROW_ID": 8, "SUBJECT_ID": 1, "HADM_ID": 100001, "EVENTTYPE": "admit", "CURR_WARDID": 45,
             "INTIME": "2151-07-16 14:30:00"},
            {"ROW_ID": 9, "SUBJECT_ID": 2, "HADM_ID": 100004, "EVENTTYPE": "admit", "CURR_CAREUNIT": "CCU",
             "CURR_WARDID": 7, "INTIME": "2151-03-01 10:00:00"},
        ],
        "NOTEEVENTS": [
            note | {"ROW_ID": 174, "CHARTDATE": "2151-07-19", "CATEGORY": "Discharge summary", "DESCRIPTION": "Report",
                    "TEXT": SUMMARY},
            note | {"ROW_ID": 175, "CHARTDATE": "2151-07-19", "CATEGORY": "Discharge summary",
                    "DESCRIPTION": "Addendum"},
            note | {"ROW_ID": 176, "CATEGORY": "Physician ", "DESCRIPTION": "Physician Resident Admission Note",
                    "CHARTTIME": "2151-07-16 16:00:00", "STORETIME": "2151-07-16 18:05:11", "CGID": 17574},
            note | {"ROW_ID": 177, "CATEGORY": "Physician ", "DESCRIPTION": "Physician Readmission Note",
                    "CHARTTIME": "2151-07-16 17:00:00"},
            note | {"ROW_ID": 178, "CATEGORY": "Nursing", "DESCRIPTION": "Nursing Progress Note", "ISERROR": "1",
                    "CHARTTIME": "2151-07-16 20:00:00", "STORETIME": "2151-07-16 20:10:00"},
            note | {"ROW_ID": 179, "CATEGORY": "Radiology", "DESCRIPTION": "CHEST (PORTABLE AP)", "HADM_ID": "",
                    "CHARTTIME": "2151-06-01 09:13:00"},
            note | {"ROW_ID": 180, "CATEGORY": "Echo", "DESCRIPTION": "Report"},
            note | {"ROW_ID": 181, "CATEGORY": "Nursing", "DESCRIPTION": "Generic Note",
                    "CHARTTIME": "0001-01-01 00:00:00"},
            note | {"ROW_ID": 182, "CATEGORY": "Nursing", "DESCRIPTION": "Generic Note", "CHARTTIME": "yesterday"},
            note | {"ROW_ID": 183, "CATEGORY": "Case Management ", "DESCRIPTION": "Discharge Plan", "SUBJECT_ID": 99},
            note | {"ROW_ID": 184, "CATEGORY": "Nursing", "DESCRIPTION": "Generic Note", "SUBJECT_ID": 4,
                    "HADM_ID": 100007, "CHARTTIME": "2149-01-03 10:00:00"},
        ],
    }  # fmt: skip


def mimic4_rows() -> dict[str, list[Row]]:
    """Three patients; ICD-9 and ICD-10 codes; discharge summaries and radiology."""
    stay = {"insurance": "Other", "hospital_expire_flag": 0, "race": "WHITE", "discharge_location": "HOME"}
    kinds = ["EW EMER.", "DIRECT EMER.", "URGENT", "ELECTIVE", "SURGICAL SAME DAY ADMISSION", "OBSERVATION ADMIT",
             "EU OBSERVATION", "DIRECT OBSERVATION", "AMBULATORY OBSERVATION", "SPACE STATION"]  # fmt: skip
    note = {"subject_id": 10, "hadm_id": 20, "note_seq": 21}
    return {
        "hosp/patients": [
            {"subject_id": 10, "gender": "F", "anchor_age": 52, "anchor_year": 2180,
             "anchor_year_group": "2014 - 2016", "dod": "2182-09-09"},
            {"subject_id": 11, "gender": "M", "anchor_age": 91, "anchor_year": 2150,
             "anchor_year_group": "2008 - 2010"},
            {"subject_id": 12, "gender": "M", "anchor_age": "old", "anchor_year": 2150},
        ],
        "hosp/admissions": [
            *[stay | {"subject_id": 10, "hadm_id": 20 + i, "admittime": f"2180-{i + 1:02}-06 22:23:00",
                      "dischtime": f"2180-{i + 1:02}-07 17:15:00", "admission_type": kind}
              for i, kind in enumerate(kinds)],
            stay | {"subject_id": 11, "hadm_id": 30, "admittime": "2151-05-06 22:23:00", "race": "HISPANIC OR LATINO",
                    "dischtime": "2151-05-08 17:15:00", "deathtime": "2151-05-08 17:15:00",
                    "admission_type": "URGENT", "hospital_expire_flag": 1, "discharge_location": "DIED"},
        ],
        "hosp/diagnoses_icd": [
            {"subject_id": 10, "hadm_id": 20, "seq_num": 1, "icd_code": "5723   ", "icd_version": 9},
            {"subject_id": 10, "hadm_id": 20, "seq_num": 2, "icd_code": "E1122", "icd_version": 10},
            {"subject_id": 10, "hadm_id": 20, "seq_num": 3, "icd_code": "E1122", "icd_version": ""},
        ],
        "hosp/services": [
            {"subject_id": 10, "hadm_id": 20, "transfertime": "2180-01-06 22:24:57", "curr_service": "TRAUM"},
        ],
        "hosp/transfers": [
            {"subject_id": 10, "hadm_id": 20, "transfer_id": 1, "eventtype": "ED", "careunit": "Emergency Department",
             "intime": "2180-01-06 19:17:00"},
            {"subject_id": 10, "hadm_id": 20, "transfer_id": 2, "eventtype": "admit", "careunit": "Transplant",
             "intime": "2180-01-06 23:30:00"},
            {"subject_id": 10, "hadm_id": 20, "transfer_id": 3, "eventtype": "discharge", "careunit": "",
             "intime": "2180-01-07 17:21:27"},
        ],
        "icu/icustays": [],
        "note/discharge": [
            note | {"note_id": "10-DS-21", "note_type": "DS", "charttime": "2180-01-07 00:00:00",
                    "storetime": "2180-01-09 15:26:00", "text": SUMMARY},
            note | {"note_id": "10-AD-22", "note_type": "AD", "charttime": "2180-01-07 00:00:00",
                    "text": "An addendum."},
        ],
        "note/radiology": [
            note | {"note_id": "10-RR-15", "note_type": "RR", "charttime": "2180-01-06 23:10:00", "text": "No focus.",
                    "storetime": "2180-01-06 23:58:00"},
            note | {"note_id": "10-AR-16", "note_type": "AR", "charttime": "2180-01-06 23:10:00", "text": "Addendum.",
                    "hadm_id": ""},
        ],
    }  # fmt: skip


def write_csv(
    path: Path, columns: Iterable[str], rows: list[Row], is_quoted: bool, gz: bool = True, crlf: bool = False
) -> Path:
    """One table; `is_quoted`: header and text in quotes, numbers and times not, as MIMIC-III has it."""
    sink = io.StringIO(newline="")
    names = list(columns)
    line = "\r\n" if crlf else "\n"
    quoting = csv.QUOTE_NONNUMERIC if is_quoted else csv.QUOTE_MINIMAL
    csv.writer(sink, quoting=quoting, lineterminator=line).writerow(names)
    writer = csv.writer(sink, quoting=csv.QUOTE_MINIMAL, lineterminator=line)
    for i, row in enumerate(rows):
        given = {name.lower(): value for name, value in row.items()}
        writer.writerow([given.get(name.lower(), i if name.lower() == "row_id" else "") for name in names])
    text = sink.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_name(path.name + (".csv.gz" if gz else ".csv"))
    path.write_bytes(gzip.compress(text, 1) if gz else text)
    return path


def mimic3(
    folder: Path, gz: bool = True, crlf: bool = False, lower: bool = False, rows: dict[str, list[Row]] | None = None
) -> Path:
    """A MIMIC-III folder. `lower`: column names as the demo has them."""
    for table, lines in (rows or mimic3_rows()).items():
        columns = COLUMNS[table].lower() if lower else COLUMNS[table]
        write_csv(folder / table, columns.split(), lines, not lower, gz, crlf)
    return folder


def mimic4(folder: Path, notes: Path | None = None, gz: bool = True, rows: dict[str, list[Row]] | None = None) -> Path:
    """A MIMIC-IV folder; the notes go to `notes`, or into its own note/."""
    for table, lines in (rows or mimic4_rows()).items():
        place = folder / table
        if notes is not None and table.startswith("note/"):
            place = notes / table.removeprefix("note/")
        write_csv(place, COLUMNS_IV[table].split(), lines, False, gz)
    return folder
