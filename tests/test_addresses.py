"""Passwords in database URLs: taken out before anything can write them down, kept for the connection alone."""

import pytest

from lang1.config import ExtractConfig, dump_yaml
from lang1.config.addresses import is_url, masked, with_password, without_password


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://me:pw@host:5432/db?sslmode=require", "postgresql://me@host:5432/db?sslmode=require"),
        ("postgresql://me:p%40w@/db?host=/run", "postgresql://me@/db?host=/run"),
        ("postgresql://host/db?user=me&password=pw&sslpassword=pw", "postgresql://host/db?user=me"),
        ("postgresql://:pw@host/db", "postgresql://@host/db"),
        ("mssql+pyodbc://sa:pw@host/db?driver=X&TrustServerCertificate=yes&PWD=pw",
         "mssql+pyodbc://sa@host/db?driver=X&TrustServerCertificate=yes"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BSERVER%3Dh%3BUID%3Dsa%3BPWD%3D%7Bpw%3B1%7D",
         "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BSERVER%3Dh%3BUID%3Dsa"),
        ("postgresql://me@host/db?options=-csearch_path%3Dcdm", "postgresql://me@host/db?options=-csearch_path%3Dcdm"),
        ("sqlite:////data/a@b.db", "sqlite:////data/a@b.db"),
        ("/data/a:b@c/warehouse.duckdb", "/data/a:b@c/warehouse.duckdb"),
    ],
)  # fmt: skip
def test_what_is_shown_has_no_password_and_what_connects_has(given: str, shown: str) -> None:
    assert without_password(given) == shown
    assert without_password(shown) == shown
    assert with_password(shown) == given or given == shown
    cfg = ExtractConfig(path=given)
    assert cfg.path == shown and "pw" not in dump_yaml(cfg)


@pytest.mark.parametrize("text", ["postgresql://me:a@b@host/db", "mysql://me:a/b@host/db", "mysql://me:a?b@host/db",
                                  "postgresql://me:a#b@host/db"])  # fmt: skip
def test_a_url_whose_parts_cannot_be_told_apart_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^postgresql://\.\.\.: user|^mysql://\.\.\.: user") as caught:
        without_password(text)
    assert "me" not in str(caught.value).split(":")[1] and "host/db" not in str(caught.value)


def test_a_path_is_no_url() -> None:
    assert not is_url("/data/x.duckdb") and not is_url("C:/data") and is_url("sqlite:///x.db")


def test_a_message_is_masked_before_it_is_printed() -> None:
    assert masked("no: postgresql://u:pw@h/db; else") == "no: postgresql://u@h/db; else"
