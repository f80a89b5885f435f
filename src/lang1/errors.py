"""The errors that a user can mend. Each ends as one line on stderr and, unless it says otherwise, exit code 2.

    Exception
      LangError
        InputError    a file, folder, table, row or column is not what it should be
          ConfigError a recipe or an override is not what it should be
          Unfinished  the disk or the server gave out: what was done is kept, the same command goes on
        TrainingGaveUp the loss is not finite, or spiked too often: exit code 3
        LostRank      another process of a distributed run is gone: exit code 1, the same command goes on
        Stopped       a signal ended a long stage after it saved: exit code 143

Anything else that escapes is our fault: a traceback and exit code 1. A message says what is wrong, where
(file, row, column, config key) and what to do. It never holds note text.
"""

import importlib.util

EXIT_DONE = 0
EXIT_OUR_FAULT = 1
EXIT_BAD_INPUT = 2
EXIT_GAVE_UP = 3
EXIT_STOPPED = 143


class LangError(Exception):
    """Base of the errors that are printed as one line."""

    exit_code = EXIT_BAD_INPUT


class InputError(LangError):
    """Input that cannot be used: what is wrong, where, and what to do."""


class ConfigError(InputError):
    """A recipe, an override or a combination of settings that cannot be used."""


class Unfinished(InputError):
    """The disk is full or a server went away: what is done stays, and the same command goes on from there."""


class TrainingGaveUp(LangError):
    """Training cannot go on: the step, what was seen, and what to change."""

    exit_code = EXIT_GAVE_UP


class LostRank(LangError):
    """Another rank of a distributed run is gone; what was saved stays, and the same command goes on."""

    exit_code = EXIT_OUR_FAULT


class Stopped(LangError):
    """A signal asked a stage to stop; it saved first, and the same command goes on."""

    exit_code = EXIT_STOPPED


def require_package(package: str, needed_for: str, extra: str) -> None:
    """Raise InputError, with the line to type, where an optional package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{needed_for}: needs {package}: pip install 'lang1[{extra}]'")
