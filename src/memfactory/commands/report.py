"""`memfactory report` and `memfactory view`: look at finished runs, as a page or in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from memfactory.core.errors import BadInput
from memfactory.core.files import check_new_file
from memfactory.core.signed import is_signed
from memfactory.reports.run_data import read_run, read_runs


def report(
    paths: Sequence[Path], output: Path | None, most_rollouts: int, console: Console, *, force: bool = False
) -> int:
    """Write the page and its pictures, and say where they are.

    Without `output`, the page of one run is written into its folder, that of several into the working folder. An
    earlier report is replaced, any other file only with `force`.
    """
    from memfactory.reports.page import write_report

    runs = read_runs(paths)
    page = output or (paths[0] if len(paths) == 1 else Path()) / "report.html"
    if page.is_dir():
        raise BadInput(
            f"{page}: is a folder; --output takes the name of a file, such as {page / 'report.html'}"
        )
    if page.suffix not in (".html", ".htm"):
        raise BadInput(
            f"{page}: --output takes the name of an HTML file, such as {page.with_suffix('.html')}"
        )
    check_new_file(page, force=force, ours=is_signed)
    written = write_report(runs, page, most_rollouts)
    size = written.page.stat().st_size / 1e6
    rollouts = f"{written.shown:,} of {written.found:,} rollouts" if written.found else "no rollouts"
    console.print(
        f"report: {page} ({size:.1f} MB, {rollouts})", highlight=False, markup=False, soft_wrap=True
    )
    if written.pictures:
        line = f"pictures: {written.pictures[0].parent} ({len(written.pictures)} PNG)"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def view(path: Path, console: Console) -> int:
    """Show the rollouts of a run in the terminal. Raises `BadInput` where there is none to show them in."""
    run = read_run(path)
    if not console.is_terminal:
        raise BadInput(
            f"view needs a terminal, and this output is none; `memfactory report {path}` writes a page instead"
        )
    from memfactory.reports.terminal import RolloutBrowser

    RolloutBrowser(run).run()
    return 0
