"""Scores: a Parquet row a task row, `scores/<model>/<task>/<split>.parquet`; results and comparisons as JSON rows."""

import pyarrow as pa

RESULT_FIELDS = ("task", "model", "split", "metric", "value", "ci_low", "ci_high", "n", "events", "ceiling", "share")
COMPARISON_FIELDS = ("task", "split", "model_a", "model_b", "difference", "ci_low", "ci_high", "p")


def scores_schema(options: int) -> pa.Schema:
    """Columns of a score file for a task with `options` options."""
    return pa.schema(
        [
            pa.field(
                "model_id", pa.string(), nullable=False, metadata={"meaning": "Name that says what the model is."}
            ),
            pa.field("task", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("encounter_id", pa.string(), nullable=False),
            pa.field("patient_id", pa.string(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            *[
                pa.field(f"p_{k}", pa.float64(), metadata={"meaning": "Probability of the option."})
                for k in range(options)
            ],
            *[
                pa.field(f"logit_{k}", pa.float64(), metadata={"meaning": "Before softmax; null for baselines."})
                for k in range(options)
            ],
            pa.field(
                "method",
                pa.string(),
                nullable=False,
                metadata={"meaning": "one-token, log-likelihood, classifier, encoder."},
            ),
            pa.field(
                "prompt_tokens", pa.int32(), metadata={"meaning": "Tokens of the whole prompt; null for baselines."}
            ),
            pa.field("truncated_tokens", pa.int32(), metadata={"meaning": "Tokens of the note that were cut."}),
            *[
                pa.field(name, pa.bool_(), metadata={"meaning": f"{meaning}; null: nobody can tell."})
                for name, meaning in (
                    ("seen_in_pretraining", "The note's text stood in the tokens"),
                    ("seen_in_pretraining_patient", "A note of the patient stood in the tokens"),
                    ("seen_in_finetuning", "The note's text was a training row"),
                    ("seen_in_finetuning_patient", "The patient had a training row"),
                )
            ],
        ]
    )
