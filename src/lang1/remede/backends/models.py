"""What /v1/models says of a served model: its context, where the server tells it (vLLM, llama.cpp and ours do)."""

from __future__ import annotations

from typing import Any

from lang1.errors import Unfinished
from lang1.remede.backends.transport import Line, look_up


def served_context(line: Line) -> int | None:
    """Tokens that the model takes, or None where the server does not say.

    Raises Unfinished for a server that does not answer: a guess in its place would cut the notes otherwise.
    """
    try:
        body = look_up(line, "/models")
    except Unfinished as error:
        raise Unfinished(f"{error} (asked at /models for the context; evaluate.api.context_length sets it)") from None
    cards = body.get("data") if body else None
    told = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
    # llama.cpp serves one model and answers to any name
    mine = [card for card in told if card.get("id") == line.server.model] or (told if len(told) == 1 else [])
    return next((_context(card) for card in mine), None)


def _context(card: dict[str, Any]) -> int | None:
    """As vLLM says it and ours; as llama.cpp does, whose n_ctx is what one request gets."""
    meta = card.get("meta")
    found = card.get("max_model_len", meta.get("n_ctx") if isinstance(meta, dict) else None)
    return found if type(found) is int and 0 < found < 2**31 else None
