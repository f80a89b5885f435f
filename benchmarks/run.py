"""`make bench`: run every script of this folder, or the named ones, each in a fresh process.

A script prints what it likes and ends with one line of JSON a case, the hardest case last. The lines of all scripts
come out together on stdout, each with the script's name and the seconds that it took; the rest goes to stderr.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def scripts(names: list[str]) -> list[Path]:
    known = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.name != Path(__file__).name}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"{', '.join(unknown)}: no such benchmark; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())


def results_of(script: Path) -> list[dict[str, object]]:
    """The JSON of the script's last lines; empty when it failed or its last line is none."""
    print(f"== {script.stem}", file=sys.stderr, flush=True)
    results: list[dict[str, object]] = []
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=FOLDER.parent) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            if line.strip():
                case = read_case(line)
                results = [] if case is None else [*results, case]
    if process.returncode != 0:
        print(f"{script.name}: ended with exit code {process.returncode}", file=sys.stderr)
        return []
    if not results:
        print(f"{script.name}: its last line is not a JSON object", file=sys.stderr)
    return results


def read_case(line: str) -> dict[str, object] | None:
    """A line that is a JSON object."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def main() -> int:
    failed = 0
    for script in scripts(sys.argv[1:]):
        started = time.monotonic()
        results = results_of(script)
        failed += not results
        wall = round(time.monotonic() - started, 1)
        for result in results:
            print(json.dumps({"script": script.stem, **result, "wall_s": wall}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
