"""Every command: parse, load the configuration, call one function, print. Nothing heavy is imported early.

Exit codes: 0 done, 1 a fault of ours, 2 bad input or configuration, 3 training gave up, 143 stopped by a signal.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TYPER_USE_RICH", "0")  # plain help, in half the time
# A hospital's machine has no hub to talk to, and must not try.
for _name in (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "DO_NOT_TRACK",
    "HF_HUB_DISABLE_TELEMETRY",
):
    os.environ.setdefault(_name, "1")

import typer

from lang1.cli import benchmark, data, leaderboard, remede, serving, tasks, training, walk
from lang1.errors import EXIT_BAD_INPUT, LangError

app = typer.Typer(
    name="lang1",
    help="From a hospital's warehouse to a benchmark report: pretrain, finetune and measure a small language model.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (
    walk.run,
    data.simulate,
    data.extract,
    data.clean,
    data.duplicates,
    data.profile,
    data.tokenize,
    data.scan,
    training.plan,
    training.pretrain,
    training.watch,
    training.export,
    tasks.tasks,
    tasks.comprehension,
    tasks.statistics,
    tasks.audit,
    tasks.meds,
    training.sweep,
    training.finetune,
    benchmark.evaluate,
    benchmark.predict,
    benchmark.report,
    serving.serve,
):
    app.command()(_command)
remede_app = typer.Typer(
    name="remede",
    help="The benchmark for others: task pack, comprehension, perplexity, tables of many results.",
    no_args_is_help=True,
)
remede.add_to(remede_app)
remede_app.command()(leaderboard.table)
app.add_typer(remede_app)
app.command("config")(walk.show_config)
app.command()(walk.version)


def main() -> None:
    """Run a command; a fault that the user can mend ends as one line on stderr."""
    command = typer.main.get_command(app)
    try:
        code = command.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except LangError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on from here", 130)
    except BrokenPipeError:
        sys.exit(1)
    except (PermissionError, IsADirectoryError, NotADirectoryError, FileNotFoundError) as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; check the path and its permissions", EXIT_BAD_INPUT)
    except Exception as error:
        # click's own errors (a missing option, an unknown command) know how to say what is wrong
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        _fail(describe(), EXIT_BAD_INPUT)


def _fail(message: str, code: int) -> None:
    from lang1.config.addresses import masked

    print(f"lang1: {masked(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)
