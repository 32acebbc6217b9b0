"""`memfactory report` and `view`: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN [RUN]...", help="Run folders; several are laid over each other."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.html", help="The page (default: report.html in the run folder)."
        ),
    ] = None,
    max_rollouts: Annotated[
        int, typer.Option("--max-rollouts", min=0, help="Most rollouts to put into the page.")
    ] = 3000,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no report.")] = False,
) -> int:
    """Write one HTML file with curves, tables and a rollout viewer, and the curves as PNG."""
    from memfactory.commands.report import report as run
    from memfactory.core.terminal import Terminal

    return run(runs, output, max_rollouts, Terminal(), force=force)


def view(run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]) -> int:
    """Look through the rollouts of a run in the terminal."""
    from memfactory.commands.report import view as show
    from memfactory.core.terminal import Terminal

    return show(run, Terminal())
