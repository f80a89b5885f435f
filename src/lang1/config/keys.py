"""Keys of APIs: they stand in environment variables and travel in a header, nowhere else."""

from __future__ import annotations

import re

NO_KEY = "a space, a line break or another character that a header does not carry"
"""what is wrong with a text that `is_key` refuses"""


def is_key(text: str) -> bool:
    """True for what `Authorization: Bearer ...` carries unchanged: printable ASCII without spaces."""
    return re.fullmatch(r"[!-~]+", text) is not None
