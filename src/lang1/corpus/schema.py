"""What `clean` and `tokenize` write: cleaned notes, rejects with reasons, documents of a corpus version."""

import pyarrow as pa

from lang1.ehr.schema import CATEGORY, TIME

CLEAN_NOTES = pa.schema(
    [
        pa.field("note_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("encounter_id", pa.string()),
        pa.field("category", CATEGORY, nullable=False),
        pa.field("note_type", CATEGORY, nullable=False),
        pa.field("author_role", CATEGORY),
        pa.field("written_time", TIME),
        pa.field("signed_time", TIME),
        pa.field("department", CATEGORY),
        pa.field("text", pa.large_string(), nullable=False, metadata={"meaning": "ASCII, one space between words."}),
        pa.field("words", pa.int32(), nullable=False),
        pa.field("note_hash", pa.string(), nullable=False, metadata={"meaning": "hash_id of the cleaned text."}),
    ]
)

REJECTS = pa.schema(
    [
        pa.field("note_id", pa.string()),
        pa.field("patient_id", pa.string()),
        pa.field("encounter_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False, metadata={"meaning": "Name of the rule that left it out."}),
        pa.field("text", pa.large_string(), metadata={"meaning": "The note as it came; the file is mode 0600."}),
    ]
)

DOCUMENTS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False, metadata={"meaning": "clinical or web."}),
        pa.field("split", pa.string(), nullable=False, metadata={"meaning": "train or val."}),
        pa.field("note_hash", pa.string(), nullable=False, metadata={"meaning": "hash_id of the text."}),
        pa.field("patient_hash", pa.string(), metadata={"meaning": "hash_id of patient_id; null for web text."}),
        pa.field("signed_time", TIME, metadata={"meaning": "Of a note; null for web text."}),
        pa.field("tokens", pa.int32(), nullable=False, metadata={"meaning": "With the separator at its end."}),
    ]
)
