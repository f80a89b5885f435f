"""Write the pages that are made from others: every command's help, every recipe key, the list of decisions.

`python docs/generate.py` writes them; tests/test_docs.py fails when they are out of date.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

DOCS = Path(__file__).parent
PAGE_PER_COMMAND = {
    "run": "quickstart.md",
    "simulate": "simulated-hospital.md",
    "watch": "monitor.md",
    "config": "configuration.md",
    "version": "install.md",
    "remede table": "metrics.md",
    "remede export-pack": "remede-pack.md",
    "remede comprehension": "comprehension.md",
    "remede perplexity": "evaluate.md",
}
"""commands whose page has another name"""


def page_of(command: str) -> str:
    """The page that speaks of a command."""
    return PAGE_PER_COMMAND.get(command, f"{command.replace(' ', '-')}.md")


def commands() -> dict[str, Any]:
    """Every command by name, in the order of `lang1 --help`; one of a group by both words."""
    import typer

    from lang1.cli import app

    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {below}": inner[below] for below in inner}
    return found


def help_of(command: Any, name: str) -> str:
    """What `lang1 NAME --help` prints on a terminal of 100 columns."""
    from typer import Context

    context = Context(command, info_name=name, terminal_width=100, max_content_width=100)
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines()).strip()


def cli_page() -> str:
    """The page of all commands."""
    import typer

    from lang1.cli import app

    parts = [
        "# Commands",
        "Made from `lang1 --help` by `docs/generate.py`. Each command is one call of the library; the page that it "
        "links to says what it reads, what it writes and which faults it reports.",
        "Exit codes: 0 done, 1 a fault of ours (with a traceback), 2 bad input or configuration (one line on stderr), "
        "3 training gave up, 143 stopped by a signal after saving.",
        f"```text\n{help_of(typer.main.get_command(app), 'lang1')}\n```",
    ]
    for name, command in commands().items():
        parts.append(f"## lang1 {name}\n\nSee [{page_of(name)}]({page_of(name)}).")
        parts.append(f"```text\n{help_of(command, f'lang1 {name}')}\n```")
    return "\n\n".join(parts) + "\n"


def meanings(cls: type) -> dict[str, str]:
    """The sentence under each field of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def section_of(hint: Any) -> type | None:
    """The dataclass of a field that is a section, null for a value and for a mapping of the user's names."""
    if get_origin(hint) is dict:
        return None
    return next((t for t in (hint, *get_args(hint)) if isinstance(t, type) and is_dataclass(t)), None)


def rows(cls: type, default: Any, prefix: str) -> list[str]:
    """A table row a key of a section, its sections included."""
    from lang1.config import dump

    hints, told = get_type_hints(cls), meanings(cls)
    lines = []
    for f in fields(cls):
        nested = section_of(hints[f.name])
        value = getattr(default, f.name)
        if nested is not None:
            lines += rows(nested, nested() if value is None else value, f"{prefix}{f.name}.")
            continue
        shown = yaml.safe_dump(dump(default)[f.name], default_flow_style=True, width=1000).removesuffix("\n...\n")
        kind = str(cls.__annotations__[f.name]).replace("|", "\\|")
        lines.append(f"| `{prefix}{f.name}` | `{shown.strip()}` | `{kind}` | {told.get(f.name, '')} |")
    return lines


def keys_page() -> str:
    """The page of all recipe keys."""
    from lang1.config import ExtractConfig, OtherModel, RunConfig

    default = RunConfig(extract=ExtractConfig(path=""))
    hints, told = get_type_hints(RunConfig), meanings(RunConfig)
    head = "| key | default | type | meaning |\n|---|---|---|---|"
    parts = [
        "# Every key of a recipe",
        "Made from `src/lang1/config/` by `docs/generate.py`. [Recipes and overrides](configuration.md) says how "
        "they are given; `lang1 config RECIPE` shows them resolved.",
        "## The run",
    ]
    top = []
    for f in fields(RunConfig):
        if section_of(hints[f.name]) is None:
            top.append(f"| `{f.name}` | `{getattr(default, f.name)}` | `{f.type}` | {told.get(f.name, '')} |")
    parts.append("\n".join([head, *top]))
    for f in fields(RunConfig):
        nested = section_of(hints[f.name])
        if nested is None:
            continue
        value = nested() if getattr(default, f.name) is None or f.name == "extract" else getattr(default, f.name)
        about = inspect.getdoc(nested) or ""
        more = f" {told[f.name]}." if f.name in told else ""
        parts.append(f"## {f.name}\n\n{about}{more}")
        parts.append("\n".join([head, *rows(nested, value, f"{f.name}.")]))
    more = told["others"][0].upper() + told["others"][1:]
    parts.append(f"## others\n\n{inspect.getdoc(OtherModel)} {more}. A section has the keys above.")
    parts.append("\n".join([head, *other_rows(OtherModel)]))
    return "\n\n".join(parts) + "\n"


def other_rows(cls: type) -> list[str]:
    """The keys of a model in `others`, its sections as one row each."""
    lines = []
    for f in fields(cls):
        default, kind = yaml.safe_dump(f.default).removesuffix("\n...\n"), str(f.type).replace("|", "\\|")
        lines.append(f"| `others.NAME.{f.name}` | `{default}` | `{kind}` | {meanings(cls)[f.name]} |")
    return lines


def decisions_page() -> str:
    """The list of decisions, by their titles."""
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    listed = [f"- [{page.read_text().splitlines()[0].removeprefix('# ')}]({page.name})" for page in records]
    return "\n".join(
        [
            "# Decisions\n",
            "What was chosen, why, what it costs and what was left, a page each. A later record replaces an earlier",
            "one by naming it. This list is made by `docs/generate.py`.\n",
            *listed,
            "",
        ]
    )


PAGES = {"cli.md": cli_page, "configuration-keys.md": keys_page, "decisions/index.md": decisions_page}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make(), encoding="utf-8")
