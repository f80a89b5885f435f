"""Who may read, and with what password: one line that says what to do, and no password anywhere."""

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lang1.cli import main
from lang1.config import ExtractConfig
from lang1.ehr import extract
from lang1.errors import InputError

from .hospital import needs_ddl, warehouse
from .server import Server

SECRET = "s3cr3t-pw-71"


def fault(source: str, out: Path, cfg: ExtractConfig | None = None) -> str:
    """The message; it is one line and leaves no file behind."""
    with pytest.raises(InputError) as caught:
        extract(cfg or ExtractConfig(), source=source, out=out, seed=1)
    message = str(caught.value)
    assert "\n" not in message and caught.value.__cause__ is None
    assert not out.exists() or not list(out.iterdir())
    return message


@pytest.fixture
def loaded(server: Server, tmp_path: Path) -> Iterator[str]:
    with server.database() as database:
        server.load(database, warehouse(tmp_path / "w.duckdb"))
        server.run(database, f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'")
        yield database
        server.run(database, "DROP OWNED BY reader", "DROP ROLE reader")


@needs_ddl
def test_what_is_denied_is_named_with_the_statements_that_grant_it(server: Server, loaded: str, tmp_path: Path) -> None:
    url, out = server.url(loaded, "reader"), tmp_path / "out"
    message = fault(url, out)
    assert "user reader may not read schema cdm and table cdm.care_site, cdm.claim, cdm.concept" in message
    grants = message.partition("its owner runs: ")[2]
    assert grants.startswith("GRANT USAGE ON SCHEMA cdm TO reader; GRANT SELECT ON cdm.care_site, ")
    server.run(loaded, grants)
    server.run(loaded, "REVOKE SELECT ON cdm.note FROM reader")
    assert fault(url, out) == (
        f"{url}: user reader may not read table cdm.note; its owner runs: GRANT SELECT ON cdm.note TO reader;"
    )
    server.run(loaded, "GRANT SELECT ON cdm.note TO reader")
    assert extract(ExtractConfig(), source=url, out=out, seed=1)["counts"]["notes_kept"] == 6


@needs_ddl
def test_row_level_security_is_recorded(server: Server, loaded: str, tmp_path: Path) -> None:
    server.run(
        loaded, "GRANT USAGE ON SCHEMA cdm TO reader", "GRANT SELECT ON ALL TABLES IN SCHEMA cdm TO reader",
        "ALTER TABLE cdm.note ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON cdm.note FOR SELECT TO reader USING (person_id = 1)",
    )  # fmt: skip
    manifest = extract(ExtractConfig(), source=server.url(loaded, "reader"), out=tmp_path / "out", seed=1)
    assert manifest["counts"]["notes_kept"] == 2
    assert manifest["facts"]["database"]["row_level_security"] == ["note"]


def test_no_server_no_database_and_no_such_user(server: Server, tmp_path: Path) -> None:
    message = fault("postgresql://someone@localhost:1/warehouse", tmp_path / "out")
    assert message.startswith("postgresql://someone@localhost:1/warehouse: cannot connect: connection")
    assert "Connection refused" in message
    assert 'database "nowhere" does not exist' in fault(server.url("nowhere"), tmp_path / "out")
    assert "cannot connect" in fault(server.url(user="nobody"), tmp_path / "out")


@pytest.mark.parametrize("source", ["postgresql://u:%zz@h:port/x?nosuch=1", "postgresql://h/x?nosuch=1"])
def test_a_url_that_libpq_does_not_read(tmp_path: Path, source: str) -> None:
    assert "not a URL that PostgreSQL's own client reads" in fault(source, tmp_path / "out")


def test_source_omop_on_another_database(tmp_path: Path) -> None:
    assert "lang1 extract sql URL --sql FOLDER" in fault("mysql://u@h/x", tmp_path / "out")


@pytest.fixture
def guarded(server: Server, loaded: str) -> Iterator[str]:
    """The server asks `reader` for the password."""
    if server.named is not None:
        pytest.skip("changes pg_hba.conf of its own server only")
    rules = server.folder / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all reader scram-sha-256\n{before}")
    server.run(loaded, "SELECT pg_reload_conf()", "SELECT pg_sleep(0.2)")
    server.run(loaded, "GRANT USAGE ON SCHEMA cdm TO reader", "GRANT SELECT ON ALL TABLES IN SCHEMA cdm TO reader")
    yield loaded
    rules.write_text(before)
    server.run(loaded, "SELECT pg_reload_conf()")


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str, env: dict[str, str] | None = None) -> Done:
    """`lang1 ...`, as its entry point runs it."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        for key, value in ({"HOME": "/nonexistent"} | (env or {})).items():
            patch.setenv(key, value)
        patch.setattr(sys, "argv", ["lang1", *arguments])
        main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def found_in(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@needs_ddl
def test_the_password_comes_from_url_environment_or_file_and_stays_nowhere(
    server: Server, guarded: str, tmp_path: Path
) -> None:
    plain = server.url(guarded, "reader")
    told = plain.replace("reader@", f"reader:{SECRET}@")
    runs = tmp_path / "runs"
    wrong = command("extract", "omop", plain.replace("reader@", "reader:wrong-77@"), "--out", str(runs / "wrong"))
    assert wrong.returncode == 2 and "password authentication failed" in wrong.stderr
    assert "wrong-77" not in wrong.stderr + wrong.stdout and len(wrong.stderr.splitlines()) == 2
    without = command("extract", "omop", plain, "--out", str(runs / "without"))
    assert without.returncode == 2 and "the password comes from PGPASSWORD, ~/.pgpass" in without.stderr
    shown = command("extract", "omop", told, "--out", str(runs / "a"), "--json")
    assert shown.returncode == 0 and SECRET not in shown.stdout + shown.stderr
    # the same extraction by another way in: up to date, though no password stands in the URL
    again = command("extract", "omop", plain, "--out", str(runs / "a"), env={"PGPASSWORD": SECRET})
    assert again.returncode == 0 and "up to date" in again.stderr
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"*:*:*:reader:{SECRET}\n")
    passfile.chmod(0o600)
    by_file = command("extract", "omop", plain, "--out", str(runs / "b"), env={"PGPASSFILE": str(passfile)})
    assert by_file.returncode == 0, by_file.stderr
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"name: mine\nextract: {{path: '{told}'}}\n")
    whole = command("run", str(recipe), "--out", str(runs / "run"), "--to", "extract")
    assert whole.returncode == 0 and SECRET not in whole.stdout + whole.stderr, whole.stderr
    printed = command("config", str(recipe))
    assert SECRET not in printed.stdout and plain in printed.stdout
    assert plain in (runs / "run" / "config.yaml").read_text()
    assert not found_in(runs, SECRET)
