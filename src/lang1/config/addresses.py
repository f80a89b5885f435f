"""Database URLs: a password in one never becomes configuration, and so reaches no manifest, lock, file or message.

`without_password` gives the URL that every other part of the program sees; the whole one stays in this process's
memory, and only the room that connects asks for it (`with_password`).
"""

from __future__ import annotations

import re
from urllib.parse import quote_plus, unquote_plus

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^:@/?#]*)(?P<password>:[^@/?#]*)?@)?(?P<rest>.*)"
)
_SECRET = re.compile(r"pass|pwd|token|secret|credential", re.IGNORECASE)
_ODBC_SECRET = re.compile(r"(?:^|;)\s*(?:pwd|password)\s*=\s*(?:\{(?:[^}]|\}\})*\}|[^;]*)", re.IGNORECASE)
_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s:@/]*):\S*@")
_whole: dict[str, str] = {}


def is_url(text: str) -> bool:
    """True for scheme://..., false for a path."""
    return _URL.fullmatch(text) is not None


def without_password(text: str) -> str:
    """The URL without what proves who asks; a path as it is. Raises ValueError where user and host cannot be told
    apart, and then shows no part of them."""
    found = _URL.fullmatch(text)
    if found is None:
        return text
    scheme, rest = found["scheme"], found["rest"]
    before, mark, query = rest.partition("?")
    pairs = [pair for pair in query.split("&") if pair] if mark else []
    if not rest.startswith("/") and ("@" in before or any("@" in pair and "=" not in pair for pair in pairs)):
        raise ValueError(
            f"{scheme}://...: user, password and host cannot be told apart; write @ as %40, / as %2F, ? as %3F, # as "
            "%23, or leave the password to ~/.pgpass or PGPASSWORD"
        )
    kept = [pair for pair in map(_without_odbc_password, pairs) if not _SECRET.search(pair.partition("=")[0])]
    user = "" if found["user"] is None else f"{found['user']}@"
    shown = f"{scheme}://{user}{before}" + (f"?{'&'.join(kept)}" if kept else "")
    if found["password"] or kept != pairs:
        _whole[shown] = text
    return shown


def _without_odbc_password(pair: str) -> str:
    key, _, value = pair.partition("=")
    words = unquote_plus(value)
    if key.lower() != "odbc_connect" or not _ODBC_SECRET.search(words):
        return pair
    return f"{key}={quote_plus(_ODBC_SECRET.sub('', words))}"


def with_password(shown: str) -> str:
    """The URL as it was given to this process."""
    return _whole.get(shown, shown)


def masked(message: str) -> str:
    """A message in which no URL holds a password: the last gate before a terminal."""
    return _IN_TEXT.sub(r"\1@", message)
