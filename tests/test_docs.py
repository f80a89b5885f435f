"""The documentation keeps its word: paths exist, recipes load, commands are real, the site asks nobody outside."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lang1.config import RunConfig, load_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md")])
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["cli.md", "configuration-keys.md", "decisions/index.md"])
def test_page_made_from_others_is_up_to_date(page: str, generate: ModuleType) -> None:
    assert (DOCS / page).read_text() == generate.PAGES[page](), "run: python docs/generate.py"


def test_every_command_has_help_and_a_page_that_speaks_of_it(generate: ModuleType) -> None:
    for name, command in generate.commands().items():
        assert command.help, f"{name} has no help"
        assert all(getattr(p, "help", "") for p in command.params), f"an option of {name} has no help"
        page = DOCS / generate.page_of(name)
        assert page.exists(), f"lang1 {name} has no page {page.name}"
        assert f"lang1 {name}" in page.read_text(), f"{page.name} does not speak of lang1 {name}"


@by_name
def test_named_paths_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`((?:src|tests|recipes|benchmarks|docs|\.ci)/[\w./-]*\w/?)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


@by_name
def test_relative_links_resolve(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation_or_among_the_decisions() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    decisions = (DOCS / "decisions" / "index.md").read_text()
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        assert name in navigation or f"]({page.name})" in decisions, f"{name} is listed nowhere"


@by_name
def test_yaml_blocks_are_recipes_that_load(page: Path, tmp_path: Path) -> None:
    sections = {f.name for f in fields(RunConfig)}
    for block in blocks(page, "ya?ml"):
        loaded = yaml.safe_load(block)
        if isinstance(loaded, dict) and loaded.keys() & sections:
            recipe = tmp_path / "recipe.yaml"
            recipe.write_text(block)
            config = load_config(recipe, [], section="report")  # a part need not say where records come from
            assert {name: getattr(config, name) for name in ("name", "seed") if name in loaded} == {
                name: loaded[name] for name in ("name", "seed") if name in loaded
            }


@by_name
def test_commands_options_and_keys_that_are_shown_exist(page: Path, generate: ModuleType) -> None:
    commands = generate.commands()
    for block in blocks(page, "(?:bash|console|sh)"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if len(words) < 2 or words[0] not in {"lang1", ".venv/bin/lang1"}:
                continue
            name, *arguments = words[1:]
            if arguments and f"{name} {arguments[0]}" in commands:  # a command of a group
                name, arguments = f"{name} {arguments[0]}", arguments[1:]
            assert name in commands or name == "--help", f"{line}: no such command"
            known = {o for p in commands[name].params for o in p.opts} | {"--help"} if name in commands else set()
            asked = {a.partition("=")[0] for a in arguments if a.startswith("--")}
            assert asked <= known | {"--help"}, f"{line}: unknown options {asked - known}"
            overrides = [
                word
                for before, word in zip(["", *arguments], arguments, strict=False)
                if "=" in word and "://" not in word and not word.startswith("--") and not before.startswith("--")
            ]
            overrides.append("extract.path=x")
            load_config(None, overrides, section=name if name in {f.name for f in fields(RunConfig)} else "report")


def test_make_targets_that_are_shown_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        target
        for page in PAGES
        for target in re.findall(r"(?:`|^|&& )make (?:[A-Z]+=\S+ )*([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert {"demo", "test", "check", "bench", "docs", "clean", "wheelhouse"} <= targets
    assert shown <= targets


def test_readme_names_every_file_and_folder_of_the_package() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = "\n".join(blocks(ROOT / "README.md", "text"))
    package = ROOT / "src" / "lang1"
    missing = [
        path.name
        for path in sorted(package.iterdir())
        if not path.name.startswith(("__", "."))
        and path.suffix in {"", ".py"}
        and not re.search(rf"^ *{re.escape(path.name)}{'/' if path.is_dir() else ''} ", tree, re.MULTILINE)
    ]
    assert missing == [], "add them to the tree in README.md"
    for name in ("make demo", "make test", "WHEELHOUSE", "Apache"):
        assert name in readme


PAPER = [
    *("1 Main", "1.1", "2 Results", "3 Discussion", "4 Conclusions"),
    *("5.1", "5.2", "5.2.1", "5.2.2", "5.2.3", "5.2.4", "5.3", "5.3.1", "5.4", "5.5"),
    *("Table 1", "Table 2", *(f"Table B{i}" for i in range(1, 8))),
    *("Fig 1", "Fig 2a", "Fig 2b", "Fig 3a", "Fig 3b", "Fig 4a", "Fig 4b", "Fig 4c", "Fig 5a", "Fig 5b"),
    *("Fig A1", "Fig A2", "Fig C3", "Fig D4", "Fig E5", "Fig F6", "Fig G7", "Fig K8", "Fig L9", "Fig M10", "Fig M11"),
    *"ABCDEFGHIJKLM",
]


def test_paper_map_has_a_row_for_everything_with_a_place_or_not_yet(generate: ModuleType) -> None:
    rows = [line for line in (DOCS / "paper-to-code.md").read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [item for item in PAPER if not any(re.match(rf"{re.escape(item)}\b", c[0]) for c in cells)] == []
    known = generate.commands()
    for paper, _, code, command in (c for c in cells if c[0] != "paper"):
        assert re.search(r"`src/|not yet|not applicable|repository|\]\(", code), f"{paper}: no place and no 'not yet'"
        assert not command or command.strip("`").removeprefix("lang1 ") in known, f"{paper}: {command}"


def test_site_is_built_without_warnings_and_asks_nobody_outside(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    outside = []
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text()
        tags = re.findall(r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?([^\"' >]+)", text)
        tags += re.findall(r"<link\b(?=[^>]*rel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*href=([^ >]+)", text)
        outside += [f"{page.name}: {tag}" for tag in tags if "//" in tag]
    for style in (tmp_path / "site").rglob("*.css"):
        outside += [f"{style.name}: {url}" for url in re.findall(r"url\([\"']?(https?:[^)]+)", style.read_text())]
        outside += [style.name for _ in re.findall(r"@import", style.read_text())]
    assert outside == []
    assert (tmp_path / "site" / "quickstart" / "index.html").exists()
