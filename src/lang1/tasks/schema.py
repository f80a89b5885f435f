"""Task rows: one Parquet file a task and split, `tasks/<id>/<split>.parquet`."""

import pyarrow as pa

from lang1.ehr.schema import TIME

SPLITS = ("train", "val", "test", "temporal_1", "temporal_2")
AGE_BANDS = ("0-17", "18-34", "35-49", "50-64", "65-74", "75-84", "85+")


def _column(name: str, kind: pa.DataType, meaning: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


ROWS = pa.schema(
    [
        _column("task", pa.string(), "readmission, mortality, los, cci, denial or one of your own.", nullable=False),
        _column("row_id", pa.string(), "<task>-<encounter_id>: one row an encounter.", nullable=False),
        _column(
            "patient_id",
            pa.string(),
            "Whose row it is: the unit of splits and of resampling.",
            nullable=False,
        ),
        _column("encounter_id", pa.string(), "The index stay (the first of merged transfers).", nullable=False),
        _column("note_id", pa.string(), "The index note.", nullable=False),
        _column("note_type", pa.string(), "H&P or discharge summary.", nullable=False),
        _column(
            "prediction_time",
            TIME,
            "Signing time of the index note, or what an own task's SQL gives; null without times.",
        ),
        _column(
            "text",
            pa.large_string(),
            "The cleaned note alone; the question is added by the prompt builder.",
            nullable=False,
        ),
        _column("label", pa.int32(), "Index of the true option.", nullable=False),
        _column("split", pa.string(), "train, val, test, temporal_1 or temporal_2.", nullable=False),
        _column("note_hash", pa.string(), "corpus.hashes.hash_id of the cleaned text.", nullable=False),
        _column("age_band", pa.string(), "Age at admission: one of AGE_BANDS, or null."),
        _column("sex", pa.string(), "From patients."),
        _column("race", pa.string(), "From patients."),
        _column("ethnicity", pa.string(), "From patients."),
        _column("borough", pa.string(), "From patients."),
        _column("is_child", pa.bool_(), "Younger than 18 at admission (Appendix K)."),
        _column("author_role", pa.string(), "Of the index note: for the leakage audit, read by no prompt."),
        _column("department", pa.string(), "Of the encounter: for strata, read by no prompt."),
        _column("died_after_discharge", pa.bool_(), "Readmission: died within the window, label 0 all the same."),
    ]
)

COMPREHENSION = pa.schema(
    [
        _column("task", pa.string(), "sciq or pubmedqa.", nullable=False),
        _column("row_id", pa.string(), "<task>-<id>: one row a question.", nullable=False),
        _column("text", pa.large_string(), "The passage that the question is about; may be empty.", nullable=False),
        _column("question", pa.large_string(), "Asked of this row alone.", nullable=False),
        _column("options", pa.list_(pa.string()), "Its answers, in the order of the letters.", nullable=False),
        _column("label", pa.int32(), "Index of the true option.", nullable=False),
        _column("split", pa.string(), "train (shots), val or test.", nullable=False),
        _column("note_hash", pa.string(), "corpus.hashes.hash_id of text and question.", nullable=False),
    ]
)

ATTRITION = pa.schema(
    [
        _column("task", pa.string(), "Task id.", nullable=False),
        _column("step", pa.int32(), "Order of the rule.", nullable=False),
        _column("rule", pa.string(), "What the rule asks.", nullable=False),
        _column("left_out", pa.int64(), "Encounters that the rule left out.", nullable=False),
        _column("remaining", pa.int64(), "Encounters after the rule.", nullable=False),
    ]
)

NOTE_ATTRITION = pa.schema(
    [
        _column("note_type", pa.string(), "H&P or discharge summary: what the note may be the index note for."),
        _column("step", pa.int32(), "Order of the condition; a note that fails one fails those after it."),
        _column("rule", pa.string(), "What the note is."),
        _column("notes", pa.int64(), "Notes of which it holds."),
        _column("stays", pa.int64(), "Stays that have such a note."),
    ]
)

LEFT_OUT = pa.schema(
    [
        _column("encounter_id", pa.string(), "An encounter that is not a row of the task.", nullable=False),
        _column("step", pa.int32(), "The first rule that it failed: `step` of the attrition table.", nullable=False),
        _column("rule", pa.string(), "The rule in words.", nullable=False),
    ]
)

OFFENDING = pa.schema(
    [
        _column("check", pa.string(), "Check of the leakage audit that found the row.", nullable=False),
        _column("task", pa.string(), "Task id.", nullable=False),
        _column("split", pa.string(), "Split of the row.", nullable=False),
        _column("row_id", pa.string(), "The task row.", nullable=False),
    ]
)

SUBJECT_ID_MAP = pa.schema(
    [
        _column("patient_id", pa.string(), "Our id.", nullable=False),
        _column("subject_id", pa.int64(), "MEDS's id: a hash of ours.", nullable=False),
    ]
)

SUBJECT_SPLITS = pa.schema(
    [
        _column("subject_id", pa.int64(), "MEDS's id.", nullable=False),
        _column("split", pa.string(), "train, tuning (val) or held_out (test).", nullable=False),
    ]
)

MEDS_DATA = pa.schema(
    [
        _column("subject_id", pa.int64(), "MEDS's id.", nullable=False),
        _column("time", TIME, "When it was known; null: it holds for good."),
        _column("code", pa.string(), "What happened: KIND//value, or one of MEDS's own.", nullable=False),
        _column("numeric_value", pa.float32(), "None of our events has one."),
        _column("text_value", pa.large_string(), "The cleaned text of a note."),
        _column("encounter_id", pa.string(), "The source's id of the stay or visit."),
        _column("note_id", pa.string(), "The source's id of the note."),
        _column("note_type", pa.string(), "H&P, discharge summary, ..."),
        _column("author_role", pa.string(), "Of the note."),
        _column("department", pa.string(), "Of the encounter, or of the note's author."),
    ]
)

MEDS_CODES = pa.schema(
    [
        _column("code", pa.string(), "A code of the data.", nullable=False),
        _column("description", pa.string(), "What its kind means; null for a diagnosis."),
        _column("parent_codes", pa.list_(pa.string()), "The same code in OMOP's vocabularies, as VOCABULARY/code."),
    ]
)

MEDS_ROWS = pa.schema(
    [
        _column("subject_id", pa.int64(), "MEDS's id.", nullable=False),
        _column("prediction_time", TIME, "As in the label; null: there is no label of this row."),
        _column("row_id", pa.string(), "The task row.", nullable=False),
        _column("encounter_id", pa.string(), "The index stay.", nullable=False),
        _column("note_id", pa.string(), "The index note.", nullable=False),
        _column("split", pa.string(), "One of SPLITS: the temporal ones too.", nullable=False),
        _column("died_after_discharge", pa.bool_(), "As in ROWS."),
    ]
)


def meds_labels(kind: str) -> pa.Schema:
    """MEDS 0.4's label schema with one value column, `boolean_value` or `integer_value`. No other columns."""
    value = pa.bool_() if kind == "boolean" else pa.int64()
    return pa.schema(
        [
            pa.field("subject_id", pa.int64(), nullable=False),
            pa.field("prediction_time", TIME, nullable=False),
            pa.field(f"{kind}_value", value, nullable=False),
        ]
    )
