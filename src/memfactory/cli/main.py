"""The `memfactory` command: reads arguments, calls the rest, turns errors into one line and an exit code.

Nothing heavy is imported here or by the modules of this package, so that `memfactory --help` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from memfactory import __version__
from memfactory.cli import bank, data, exporting, listing, reporting, running
from memfactory.cli.printing import echo
from memfactory.core.compat import set_environment
from memfactory.core.errors import UserError

DONE, FAILURE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="memfactory",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run, train and evaluate language-model agents that learn how to remember.",
)
app.command("train")(running.train)
app.command("eval")(running.evaluate)
app.command("infer")(running.infer)
app.command("export")(exporting.export)
app.command("report")(reporting.report)
app.command("view")(reporting.view)
app.command("recipes")(listing.recipes)
app.command("components")(listing.components)
app.command("env")(listing.env)
app.add_typer(data.app, name="data")
app.add_typer(bank.app, name="bank")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"memfactory {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code: 0 done, 2 bad input, 1 failure, 130 interrupted, 143 stopped by
    SIGTERM.

    An error that the user can mend is one line on standard error; a bug keeps its traceback.
    """
    try:
        result = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone (`memfactory ... | head`); Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}the disk is full; free some space and run the same command again", FAILURE)
    except Exception as error:
        if not _is_usage_error(error):
            raise
        return _fail(_usage(error), BAD_INPUT)
    return result if isinstance(result, int) else DONE


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # Texts of models and users may hold what the terminal's encoding cannot: shown as \ud800, not raised.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    set_environment()
    sys.exit(run())


def _fail(message: str, code: int) -> int:
    echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _is_usage_error(error: Exception) -> bool:
    """Whether the command line itself was wrong. By shape, as typer may carry its own copy of click."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _usage(error: Exception) -> str:
    message = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    return f"{message} See: {context.command_path} --help" if context is not None else message
