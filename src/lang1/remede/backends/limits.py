"""How many rows a chat is asked about: drawn answers cost ten requests' worth of writing a row (Appendix J)."""

from __future__ import annotations

from lang1.config import ApiConfig


def is_greedy(api: ApiConfig, task: str) -> bool:
    """Whether a task is asked once, without drawing, where the server tells no log-probabilities."""
    return task in api.greedy_tasks


def most_rows(api: ApiConfig, task: str) -> int | None:
    """Rows a split of a task that a chat may have to draw answers for; null: as many as there are."""
    if api.chat_scores == "top_logprobs":
        return None
    return api.greedy_max_rows if is_greedy(api, task) else api.max_rows
