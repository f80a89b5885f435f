"""Scores: a Parquet row a task row, `scores/<model>/<task>/<split>.parquet`; results and comparisons as JSON rows."""

import pyarrow as pa

RESULT_FIELDS = ("task", "model", "split", "metric", "value", "ci_low", "ci_high", "n", "events", "ceiling", "share")
COMPARISON_FIELDS = ("task", "split", "model_a", "model_b", "difference", "ci_low", "ci_high", "p")


def answers_schema(options: int) -> pa.Schema:
    """Columns of a score file of a comprehension set whose questions have `options` answers, given by their text."""
    return pa.schema(
        [
            pa.field("model_id", pa.string(), nullable=False),
            pa.field("task", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            *[
                pa.field(f"p_{k}", pa.float64(), metadata={"meaning": "Softmax over the answers."})
                for k in range(options)
            ],
            *[
                pa.field(
                    f"log_likelihood_{k}",
                    pa.float64(),
                    metadata={"meaning": "Of the answer's tokens, nats; null where answers were drawn."},
                )
                for k in range(options)
            ],
            pa.field(
                "method",
                pa.string(),
                nullable=False,
                metadata={"meaning": "How p was read: one-token, log-likelihood, or of a server."},
            ),
            pa.field("prompt_tokens", pa.int32(), metadata={"meaning": "Null where a server does not count."}),
            pa.field("truncated_tokens", pa.int32(), nullable=False, metadata={"meaning": "Of the passage."}),
            pa.field("shots", pa.int32(), nullable=False),
            pa.field("shots_cut_words", pa.int32(), nullable=False),
            pa.field("options_missing", pa.int32(), metadata={"meaning": "As in scores_schema; null in memory."}),
            pa.field("answers_refused", pa.int32(), metadata={"meaning": "As in scores_schema; null in memory."}),
        ]
    )


def perplexity_schema() -> pa.Schema:
    """Columns of a file of true answers given their question."""
    return pa.schema(
        [
            pa.field("model_id", pa.string(), nullable=False),
            pa.field("task", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("patient_id", pa.string(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            pa.field("answer_tokens", pa.int32(), nullable=False),
            pa.field(
                "log_likelihood",
                pa.float64(),
                nullable=False,
                metadata={"meaning": "Of the true answer after the prompt, over the whole vocabulary, nats."},
            ),
            pa.field("prompt_tokens", pa.int32(), nullable=False),
            pa.field("truncated_tokens", pa.int32(), nullable=False),
        ]
    )


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
                metadata={"meaning": "How p was read: one-token, encoder, classifier, or of a server."},
            ),
            pa.field(
                "prompt_tokens", pa.int32(), metadata={"meaning": "Tokens of the whole prompt; null for baselines."}
            ),
            pa.field("truncated_tokens", pa.int32(), metadata={"meaning": "Tokens of the note that were cut."}),
            pa.field("shots", pa.int32(), metadata={"meaning": "Examples before the question; null for baselines."}),
            pa.field(
                "shots_cut_words", pa.int32(), metadata={"meaning": "Words cut from the examples' notes, all together."}
            ),
            pa.field(
                "options_missing",
                pa.int32(),
                metadata={"meaning": "Options that a server's likeliest tokens left out: a bound; null in memory."},
            ),
            pa.field(
                "answers_refused",
                pa.int32(),
                metadata={"meaning": "Drawn answers that name no option; null where none was drawn."},
            ),
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
