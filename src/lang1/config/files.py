"""YAML files as mappings whose keys stand once: recipes, and the definitions of a site's own tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lang1.errors import ConfigError


def read_mapping(path: Path, kind: str, hint: str) -> dict[str, Any]:
    """The mapping that a YAML file holds, empty for an empty file. Raises ConfigError that names the line.

    `kind` is what the file is to a user (recipe), `hint` what to do when it is not there.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such {kind}; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error.__class__.__name__})") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise ConfigError(
            f"{path}: line {line}: not a valid {kind} ({getattr(error, 'problem', None) or 'syntax error'})"
        ) from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: a {kind} is a mapping of sections, found {type(loaded).__name__}")
    return loaded


class _OnceLoader(yaml.SafeLoader):
    """YAML whose keys are words that stand once in their section: PyYAML itself lets the last of two win, unsaid."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; a repeated key and a key that is no word are refused with their line."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            problem = "not a word" if not isinstance(key, str) else "given twice" if key in seen else None
            if problem is not None:
                raise yaml.MarkedYAMLError(problem=f"key {key}: {problem}", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
