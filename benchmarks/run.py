"""`make bench`: run every script of this folder, or the named ones, each in a fresh process.

A script prints what it likes and ends with one line of JSON. The lines of all scripts come out together on stdout,
each with the script's name and the seconds that it took; the rest goes to stderr as it is printed.
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


def result_of(script: Path) -> dict[str, object] | None:
    """The JSON of the script's last line; null when it failed or printed none."""
    print(f"== {script.stem}", file=sys.stderr, flush=True)
    last = ""
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=FOLDER.parent) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            last = line if line.strip() else last
    if process.returncode != 0:
        print(f"{script.name}: ended with exit code {process.returncode}", file=sys.stderr)
        return None
    try:
        result = json.loads(last)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        print(f"{script.name}: its last line is not a JSON object", file=sys.stderr)
        return None
    return result


def main() -> int:
    failed = 0
    for script in scripts(sys.argv[1:]):
        started = time.monotonic()
        result = result_of(script)
        failed += result is None
        if result is not None:
            result = {"script": script.stem, **result, "wall_s": round(time.monotonic() - started, 1)}
            print(json.dumps(result), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
