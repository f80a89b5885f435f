"""The leakage audit: its checks, their thresholds, and what is accepted with a reason."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from lang1.config.checks import STRICT, require

FAILING = (
    "note_after_prediction",
    "addendum",
    "later_encounter",
    "label_dependent_window",
    "patient_in_two_splits",
    "patient_in_two_splits_across_tasks",
)
"""a finding ends the stage with exit code 2, unless it is accepted"""
REPORTING = ("outcome_words", "same_text", "patients_in_temporal", "one_feature")
"""a finding above its threshold is said"""
CHECKS = (*FAILING, *REPORTING)


@dataclass(frozen=True)
class AuditConfig:
    """The leakage audit (docs/audit.md)."""

    accept: dict[str, str] = field(default_factory=dict)
    """check: reason. A check that is accepted does not fail; the reason stands in manifest and audit"""
    outcome_word_lift: float = 3.0
    """said: rows of one label hold an outcome word so many times as often as rows of the other labels"""
    outcome_word_rows: int = 20
    """rows of that label with the word, at least, before its lift is judged"""
    same_text_share: float = 0.01
    """said: share of a split's rows whose text, but for case, digits and punctuation, stands in train too"""
    one_feature_auroc: float = 0.7
    """said: length, hour, author or department alone reaches this AUROC with its whole 95 % interval"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Names of checks that exist, each with a reason, and thresholds that can be reached."""
        for name, reason in self.accept.items():
            if name not in CHECKS:
                near = difflib.get_close_matches(name, CHECKS, 1, 0.4)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CHECKS)}"
                raise ValueError(f"accept.{name}: no such check; {hint}")
            if not reason.strip():
                raise ValueError(f"accept.{name}: must have a reason")
        require(
            (self.outcome_word_lift > 1, "outcome_word_lift", "above 1"),
            (self.outcome_word_rows >= 1, "outcome_word_rows", "at least 1"),
            (0 <= self.same_text_share < 1, "same_text_share", "from 0 to below 1"),
            (0.5 < self.one_feature_auroc <= 1, "one_feature_auroc", "above 0.5, at most 1"),
        )
