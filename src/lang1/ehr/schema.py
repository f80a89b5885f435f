"""The canonical records: Arrow schemas of every table, a sentence a column. Only `ehr/sql/` knows a source's columns.

Times are local timestamps without zone, microseconds; ids are strings; a column that a source cannot give is null.
"""

import pyarrow as pa

TIME = pa.timestamp("us")
CATEGORY = pa.dictionary(pa.int32(), pa.string())
CATEGORIES = ("hospital", "pathology", "radiology")


def _column(name: str, kind: pa.DataType, meaning: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


PATIENTS = pa.schema(
    [
        _column("patient_id", pa.string(), "The source's person id as text.", nullable=False),
        _column("birth_date", pa.date32(), "Day of birth, or null."),
        _column("sex", CATEGORY, "female, male or the source's other value."),
        _column("race", CATEGORY, "The source's race category."),
        _column("ethnicity", CATEGORY, "The source's ethnicity category."),
        _column("borough", CATEGORY, "District of residence: the paper's borough, a county elsewhere."),
        _column("death_date", pa.date32(), "Day of death wherever it happened, or null."),
    ]
)

ENCOUNTERS = pa.schema(
    [
        _column("encounter_id", pa.string(), "The source's visit id as text.", nullable=False),
        _column("patient_id", pa.string(), "Whose stay it is.", nullable=False),
        _column("encounter_class", CATEGORY, "inpatient, emergency, outpatient.", nullable=False),
        _column("admit_time", TIME, "Start of the stay; null where the source has no times."),
        _column("discharge_time", TIME, "End of the stay; null while it lasts or where the source has no times."),
        _column("discharge_disposition", CATEGORY, "Where to; 'Expired' means death in the stay."),
        _column("service", CATEGORY, "Clinical service in lower case: medicine, rehabilitation, palliative care, ..."),
        _column("department", CATEGORY, "Ward or department."),
        _column("facility", CATEGORY, "Hospital of a multi-hospital system."),
        _column("admission_type", CATEGORY, "emergency, urgent, elective, newborn."),
        _column("primary_diagnosis", pa.string(), "Code of the main diagnosis."),
        _column("sequence", pa.int64(), "Given fact, used only where times are null: order of a patient's stays."),
        _column("length_of_stay_days", pa.float64(), "Given fact, used only where times are null: days in hospital."),
        _column("readmitted_30d", pa.bool_(), "Given fact, used only where times are null: readmitted within 30 days."),
        _column("age_at_admission", pa.float64(), "Given fact, used only where times are null: years."),
    ]
)

NOTES = pa.schema(
    [
        _column("note_id", pa.string(), "The source's note id as text.", nullable=False),
        _column("patient_id", pa.string(), "Whom the note is about.", nullable=False),
        _column("encounter_id", pa.string(), "The stay it belongs to, or null."),
        _column("category", CATEGORY, "hospital, pathology or radiology (5.1).", nullable=False),
        _column("note_type", CATEGORY, "H&P, discharge summary, progress, radiology, pathology, ...", nullable=False),
        _column("author_role", CATEGORY, "attending, resident, physician assistant, nurse, ..."),
        _column("written_time", TIME, "When it was begun."),
        _column("signed_time", TIME, "When it was first signed: the clock of prediction_time. Null if unsigned."),
        _column("department", CATEGORY, "Ward or department of the author."),
        _column(
            "text", pa.large_string(), "The note as it came, RTF and HTML included; null when the source has none."
        ),
    ]
)

DIAGNOSES = pa.schema(
    [
        _column("patient_id", pa.string(), "Whose diagnosis it is.", nullable=False),
        _column("encounter_id", pa.string(), "The stay it was coded for, or null."),
        _column("code", pa.string(), "ICD code as the source writes it.", nullable=False),
        _column("code_system", CATEGORY, "ICD9CM or ICD10CM."),
        _column("coded_time", TIME, "When it was coded: usually after discharge."),
        _column("position", pa.int32(), "1 is the principal diagnosis."),
    ]
)

CLAIMS = pa.schema(
    [
        _column("claim_id", pa.string(), "The source's claim id as text.", nullable=False),
        _column("encounter_id", pa.string(), "The stay that is claimed.", nullable=False),
        _column("payer", CATEGORY, "Who pays."),
        _column(
            "status", CATEGORY, "no denial; final, adverse determination; final, favorable determination; pending."
        ),
        _column("status_time", TIME, "When the status was set."),
    ]
)

TABLES: dict[str, pa.Schema] = {
    "patients": PATIENTS,
    "encounters": ENCOUNTERS,
    "notes": NOTES,
    "diagnoses": DIAGNOSES,
    "claims": CLAIMS,
}
OPTIONAL = ("claims",)
"""tables that a source may lack: what needs them says so"""
FEATURES = ("features_admission", "features_discharge")
"""optional tables of a source: encounter_id + any numeric or text columns, known at admission or at discharge;
only the `columns+xgboost` baseline reads them"""
