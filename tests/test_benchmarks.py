"""`make bench` runs every script, passes on each one's JSON line, and fails when one fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).parents[1] / "benchmarks" / "run.py"


def bench(folder: Path, scripts: dict[str, str], *names: str) -> subprocess.CompletedProcess[str]:
    (folder / "benchmarks").mkdir()
    shutil.copy(RUNNER, folder / "benchmarks" / "run.py")
    for name, code in scripts.items():
        (folder / "benchmarks" / f"{name}.py").write_text(code)
    return subprocess.run(
        [sys.executable, folder / "benchmarks" / "run.py", *names], capture_output=True, text=True, cwd=folder
    )


GOOD = "print('warming up')\nprint('{\"ratio\": 2.5}')\n"


def test_last_line_of_every_script_is_passed_on_in_order(tmp_path: Path) -> None:
    done = bench(tmp_path, {"b": GOOD, "a": GOOD.replace("2.5", "3")})
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["script"], line["ratio"]) for line in lines] == [("a", 3), ("b", 2.5)]
    assert all(line["wall_s"] >= 0 for line in lines)
    assert done.stderr.count("warming up") == 2


def test_lines_of_all_cases_at_the_end_are_passed_on_and_no_line_before_them(tmp_path: Path) -> None:
    cases = "\\n".join(json.dumps({"ratio": ratio}).replace('"', '\\"') for ratio in (1, 2))
    done = bench(tmp_path, {"a": f"{GOOD}print('warm')\nprint(\"{cases}\")\n"})
    assert [json.loads(line)["ratio"] for line in done.stdout.splitlines()] == [1, 2]


def test_named_script_runs_alone(tmp_path: Path) -> None:
    done = bench(tmp_path, {"a": GOOD, "b": "raise SystemExit(7)"}, "a")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1


def test_script_that_fails_or_prints_no_json_fails_the_whole_but_not_the_others(tmp_path: Path) -> None:
    done = bench(tmp_path, {"a": "raise SystemExit(7)", "b": "print('fast')", "c": GOOD})
    assert done.returncode == 1
    assert [json.loads(line)["script"] for line in done.stdout.splitlines()] == ["c"]
    assert "a.py: ended with exit code 7" in done.stderr
    assert "b.py: its last line is not a JSON object" in done.stderr


def test_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    done = bench(tmp_path, {"a": GOOD, "b": GOOD}, "zz")
    assert done.returncode == 1
    assert done.stderr == "zz: no such benchmark; there are a, b\n"
