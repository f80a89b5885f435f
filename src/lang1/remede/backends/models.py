"""What /v1/models says of a served model: its context, where the server tells it (vLLM and ours do)."""

from __future__ import annotations

import requests

from lang1.remede.backends.transport import Line


def served_context(line: Line) -> int | None:
    """Tokens that the model takes, or None where the server does not say. The scoring requests tell of other faults."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy of the environment
        try:
            answer = session.get(
                f"{line.server.url}/models", headers=line.headers(), timeout=line.api.timeout_s, allow_redirects=False
            )
            cards = answer.json()["data"]
            found = next(card for card in cards if card["id"] == line.server.model).get("max_model_len")
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError, StopIteration):
            return None
    return found if isinstance(found, int) and found > 0 else None
