"""The command line as a user meets it: quick help, one line a fault, exit codes that a scheduler can believe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lang1.cli import main
from lang1.config import load_config

ROOT = Path(__file__).parents[1]
LANG1 = Path(sys.executable).with_name("lang1")
HEAVY = {"torch", "transformers", "dask", "distributed", "duckdb", "sklearn", "matplotlib", "pyarrow", "numpy", "rich"}


def lang1(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LANG1, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300)


def refused(*arguments: str | Path, cwd: Path | None = None) -> str:
    """The one line of a fault that a user can mend."""
    done = lang1(*arguments, cwd=cwd)
    return line_of_refusal(done.returncode, done.stderr)


def line_of_refusal(code: object, said: str) -> str:
    assert code == 2, said
    assert "Traceback" not in said
    told = [line for line in said.splitlines() if line.startswith("lang1: ")]
    assert len(told) == 1, said
    assert said.splitlines()[-1] == told[0]
    return told[0]


@pytest.fixture
def refused_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """As `refused`, in this process: for many commands, each of which would import the same libraries."""

    def refused(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["lang1", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return line_of_refusal(ended.value.code, capsys.readouterr().err)

    return refused


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital of a few dozen stays, simulated through the command."""
    out = tmp_path_factory.mktemp("hospital") / "warehouse"
    done = lang1("simulate", "encounters=60", "workers=1", "--out", out, "--seed", "5")
    assert done.returncode == 0, done.stderr
    return out


# --- help


def test_help_answers_in_under_half_a_second() -> None:
    before = os.times()
    done = lang1("--help")
    after = os.times()
    assert done.returncode == 0
    # processor time: wall time would measure what else the machine is doing
    assert after.children_user - before.children_user + after.children_system - before.children_system < 0.5
    for stage in ("run", "simulate", "extract", "clean", "tokenize", "pretrain", "export", "tasks", "finetune"):
        assert f"\n  {stage} " in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["pretrain", "--help"], ["config", "recipes/demo.yaml"]])
def test_help_and_configuration_import_nothing_heavy(arguments: list[str]) -> None:
    code = """
import json, sys
sys.argv = ["lang1", *sys.argv[1:]]
from lang1.cli import main
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "lang1" in loaded
    assert loaded & HEAVY == set()
    assert ("yaml" in loaded) == ("config" in arguments), "the help reads no recipe"


@pytest.mark.parametrize(
    "room", ["simulate", "ehr", "corpus", "tasks", "models", "scoring", "training", "remede", "report", "metrics"]
)
def test_importing_a_room_stays_light(room: str) -> None:
    code = f"import json, sys, lang1.{room}; print(json.dumps(sorted(n.partition('.')[0] for n in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) & {"torch", "transformers", "dask", "duckdb", "sklearn", "matplotlib"} == set()


# --- faults


def test_unknown_command_and_option_are_answered_with_the_nearest() -> None:
    assert "Did you mean 'pretrain'?" in refused("pretrian")
    assert "--sed" in refused("simulate", "--out", "x", "--sed", "1")


def test_missing_option_is_named() -> None:
    assert "Missing option '--tokens'" in refused("pretrain", "--out", "x")


def test_misspelt_recipe_key(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("simulate: {}\npretrain: {stpes: 3}\n")
    told = refused("run", "r.yaml", "finetune.batchsize=3", cwd=tmp_path)
    assert told == (
        "lang1: r.yaml: pretrain.stpes: unknown key; did you mean pretrain.steps?; "
        "finetune.batchsize: unknown key; did you mean finetune.batch_size?"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


def test_missing_recipe(tmp_path: Path) -> None:
    assert refused("run", "none.yaml", cwd=tmp_path).startswith("lang1: none.yaml: no such recipe")
    assert refused("run", cwd=tmp_path).startswith("lang1: lang1 run RECIPE: name a recipe")
    assert not list(tmp_path.iterdir())


def test_unknown_stage() -> None:
    assert "tokenise: no such stage; the stages are simulate, extract" in refused(
        "run", ROOT / "recipes" / "demo.yaml", "--to", "tokenise"
    )


def test_output_folder_of_another_run(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: mine\nsimulate: {encounters: 30, workers: 1}\n")
    assert lang1("run", recipe, "--to", "simulate", "--out", tmp_path / "out").stdout == f"run: {tmp_path / 'out'}\n"
    told = refused("run", recipe, "name=yours", "--to", "simulate", "--out", tmp_path / "out")
    assert "holds the run 'mine', not 'yours'; choose another --out" in told
    told = refused("run", recipe, "simulate.encounters=40", "--to", "simulate", "--out", tmp_path / "out")
    assert "made with other settings or inputs (encounters: 30 -> 40)" in told
    assert load_config(tmp_path / "out" / "config.yaml", []).simulate == load_config(recipe, []).simulate


def test_another_model_that_is_not_there_or_takes_a_name_is_refused_before_anything_runs(tmp_path: Path) -> None:
    recipe, out = tmp_path / "r.yaml", tmp_path / "out"
    recipe.write_text("simulate: {encounters: 30, workers: 1}\nothers: {mine: {model: nowhere}}\n")
    assert refused("run", recipe, "--out", out).startswith("lang1: others.mine.model: nowhere: not found; give the")
    recipe.write_text("simulate: {encounters: 30, workers: 1}\nothers: {LANG1 zero shot: {shots: 2}}\n")
    assert "others.LANG1 zero shot: the run has a model 'lang1 zero-shot'" in refused("run", recipe, "--out", out)
    assert not out.exists()


def test_output_folder_that_holds_other_files(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    recipe = ROOT / "recipes" / "demo.yaml"
    assert "is not empty and holds no lang1 run" in refused("run", recipe, "--out", tmp_path / "out")
    assert "holds files that no lang1 stage wrote" in refused("simulate", "encounters=9", "--out", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("out", ["/proc/lang1", "file", "file/below"])
def test_path_that_cannot_be_written(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in refused("simulate", "encounters=9", "--out", tmp_path / out)
    told = refused("run", ROOT / "recipes" / "demo.yaml", "--out", tmp_path / out)
    assert "cannot be written" in told or "is not empty and holds no lang1 run" in told


def test_read_only_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount a read-only disk here")
    try:
        assert "the file system is read-only" in refused("simulate", "encounters=9", "--out", disk / "out")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("content", [b"", b"not a database\n" * 100, b"SQLite format 3\x00" + b"\x00" * 4096])
def test_warehouse_that_is_not_duckdb(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.duckdb").write_bytes(content)
    told = refused("extract", "omop", tmp_path / "w.duckdb", "--out", tmp_path / "records")
    assert "w.duckdb" in told
    assert not (tmp_path / "records" / "manifest.json").exists()


def test_warehouse_that_is_not_there(tmp_path: Path) -> None:
    assert "none.duckdb: no such file or folder (extract.path)" in refused(
        "extract", "omop", tmp_path / "none.duckdb", "--out", tmp_path / "r"
    )


def test_warehouse_without_a_table(tmp_path: Path, warehouse: Path) -> None:
    import duckdb

    path = tmp_path / "w.duckdb"
    path.write_bytes((warehouse / "warehouse.duckdb").read_bytes())
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE visit_occurrence")
    told = refused("extract", "omop", path, "--out", tmp_path / "records")
    assert "visit_occurrence" in told
    assert not (tmp_path / "records" / "manifest.json").exists()


def test_note_column_that_is_all_null_and_an_empty_cohort(tmp_path: Path, warehouse: Path) -> None:
    import duckdb

    path = tmp_path / "w.duckdb"
    path.write_bytes((warehouse / "warehouse.duckdb").read_bytes())
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE note ALTER COLUMN note_text DROP NOT NULL")
        connection.execute("UPDATE note SET note_text = NULL")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"name": "nothing", "extract": {"path": str(path)}, "clean": {"workers": 1}}))
    told = refused("run", recipe, "--to", "tasks", "--out", tmp_path / "run")
    assert "note" in told
    folders = [p for p in (tmp_path / "run").iterdir() if p.is_dir()]
    assert "tasks" not in {p.name for p in folders if (p / "manifest.json").exists()}


def test_folder_of_the_wrong_stage_is_no_input(
    tmp_path: Path, warehouse: Path, refused_here: Callable[..., str]
) -> None:
    for arguments in (
        ["clean", "--records", warehouse],
        ["tokenize", "--corpus", warehouse],
        ["pretrain", "--tokens", warehouse],
        ["tasks", "--records", warehouse, "--corpus", warehouse],
        ["finetune", "--tasks", warehouse, "--model", warehouse],
        ["evaluate", "--tasks", warehouse, "--model", warehouse],
        ["export", warehouse],
        ["report", warehouse],
    ):
        told = refused_here(*arguments, "--out", tmp_path / str(arguments[0]))
        assert "warehouse" in told, arguments
        assert not (tmp_path / str(arguments[0]) / "manifest.json").exists()


def test_folder_that_is_not_there_is_no_input(tmp_path: Path, refused_here: Callable[..., str]) -> None:
    none = tmp_path / "none"
    for arguments in (
        ["clean", "--records", none],
        ["tokenize", "--corpus", none],
        ["pretrain", "--tokens", none],
        ["tasks", "--records", none, "--corpus", none],
        ["finetune", "--tasks", none, "--model", none],
        ["evaluate", "--tasks", none, "--model", none],
        ["export", none],
        ["report", none],
    ):
        assert "none" in refused_here(*arguments, "--out", tmp_path / str(arguments[0])), arguments


# --- what a command prints


def test_progress_goes_to_stderr_and_results_to_stdout(warehouse: Path, tmp_path: Path) -> None:
    done = lang1("simulate", "encounters=60", "workers=1", "--out", warehouse, "--seed", "5")
    assert done.stderr == f"simulate: up to date ({warehouse})\n"
    assert done.stdout.startswith(f"{warehouse}: ")
    done = lang1("simulate", "encounters=60", "workers=1", "--out", warehouse, "--seed", "5", "--quiet", "--json")
    assert done.stderr == ""
    assert json.loads(done.stdout) == json.loads((warehouse / "manifest.json").read_text())


def test_force_replaces_what_was_changed(tmp_path: Path) -> None:
    out = tmp_path / "w"
    assert lang1("simulate", "encounters=30", "workers=1", "--out", out).returncode == 0
    assert "encounters: 30 -> 31" in refused("simulate", "encounters=31", "workers=1", "--out", out)
    assert lang1("simulate", "encounters=31", "workers=1", "--out", out, "--force").returncode == 0
    assert json.loads((out / "manifest.json").read_text())["config"]["encounters"] == 31


def test_printed_configuration_is_a_recipe(tmp_path: Path) -> None:
    done = lang1("run", ROOT / "recipes" / "demo.yaml", "pretrain.steps=7", "--seed", "11", "--print-config")
    (tmp_path / "again.yaml").write_text(done.stdout)
    config = load_config(tmp_path / "again.yaml", [])
    assert (config.pretrain.steps, config.seed) == (7, 11)
    assert config == load_config(ROOT / "recipes" / "demo.yaml", ["pretrain.steps=7", "seed=11"])
    assert (
        yaml.safe_load(lang1("pretrain", "--tokens", "t", "--out", "o", "steps=7", "--print-config").stdout)["steps"]
        == 7
    )
    assert not Path("o").exists()


def test_version_is_the_packages() -> None:
    from lang1 import __version__

    assert lang1("version").stdout == f"{__version__}\n"


def test_fault_of_ours_has_a_traceback_and_another_exit_code(tmp_path: Path) -> None:
    """A module broken on purpose, found before the real one: what a bug looks like to a scheduler."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import lang1.simulate\nlang1.simulate.simulate_hospital = lambda *a, **k: 1 / 0\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [LANG1, "simulate", "--out", tmp_path / "out"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_the_other_hospital_is_chosen_by_an_option(tmp_path: Path) -> None:
    out = tmp_path / "away"
    assert lang1("simulate", "--hospital", "external", "encounters=60", "--out", out).returncode == 0
    assert json.loads((out / "manifest.json").read_text())["config"]["hospital"] == "external"
    assert "should be 'main' or 'external'" in refused("simulate", "--hospital", "moon", "--out", tmp_path / "none")


# --- the monitor of pretraining


def test_prompts_of_ones_own_need_the_option_that_says_so(tmp_path: Path) -> None:
    asked = ("pretrain", "monitor.generations.prompts=mine.json", "--tokens", tmp_path, "--out", tmp_path / "out")
    assert "pretrain.monitor.generations.prompts: must be null unless allow_phi is true (--allow-phi)" in refused(
        *asked
    )
    allowed = lang1(*asked, "--allow-phi", "--print-config")
    assert yaml.safe_load(allowed.stdout)["monitor"]["generations"]["allow_phi"] is True


def test_comprehension_rows_are_made_once(tmp_path: Path) -> None:
    row = {"question": "Why?", "correct_answer": "so", "distractor1": "a", "distractor2": "b", "distractor3": "c"}
    (tmp_path / "valid.jsonl").write_text(json.dumps(row | {"support": "It is so."}) + "\n")
    asked = ("comprehension", "--sciq", tmp_path / "valid.jsonl", "--out", tmp_path / "out")
    first, again = lang1(*asked), lang1(*asked)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "up to date" in again.stderr
    assert "sciq_test 0" in first.stdout
    assert "nothing to read; give --sciq FILE or --pubmedqa FILE" in refused(
        "comprehension", "--out", tmp_path / "none"
    )


def test_watch_is_answered_where_there_is_no_run(tmp_path: Path) -> None:
    assert "no curve.jsonl here; give the folder that lang1 pretrain writes" in refused("watch", tmp_path)
