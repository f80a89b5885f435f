"""The URL of a PostgreSQL server, as libpq reads it, and what the manifest calls the server: never with a password."""

from __future__ import annotations

import os
import re

from lang1.config.addresses import with_password
from lang1.errors import InputError


def address(url: str) -> str:
    """What the manifest calls the database: server, port, name and, where given, search path; no user, no password.

    libpq's environment (PGHOST, PGPORT, PGDATABASE, PGSERVICE, PGOPTIONS) fills what the URL leaves open.
    """
    in_url = options_in(url)
    from psycopg import pq

    found = {
        option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val is not None
    } | in_url
    path = re.search(
        r"-c\s*search_path\s*=\s*((?:\\.|[^\s\\])+)", found.get("options") or os.environ.get("PGOPTIONS", "")
    )
    service = found.get("service") or os.environ.get("PGSERVICE")
    server = f"{found.get('host', '')}:{found.get('port', '')}/{found.get('dbname') or found.get('user', '')}"
    return (
        f"postgresql://{server}" + (f" schema {path[1]}" if path else "") + (f" service {service}" if service else "")
    )


def options_in(url: str) -> dict[str, str]:
    """What a URL says, as libpq reads it, its password included."""
    try:
        from psycopg import Error
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise InputError(f"{url}: PostgreSQL needs a driver: pip install 'lang1[postgres]'") from None
    try:
        found = conninfo_to_dict(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", with_password(url)))
    except Error:
        raise InputError(
            f"{url}: not a URL that PostgreSQL's own client reads; it is postgresql://user@host:port/database with "
            "options after ?, special characters as %-codes"
        ) from None
    return {key: str(value) for key, value in found.items() if value is not None}
