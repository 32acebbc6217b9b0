"""`memfactory export`: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Of a LoRA run: a whole model instead of the adapter.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write (default: export/ in the run).")
    ] = None,
    step: Annotated[
        int | None, typer.Option("--step", min=0, help="A checkpoint's weights instead of the newest.")
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub", metavar="OWNER/NAME", help="Upload the folder to the Hugging Face hub."
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A repository that --push-to-hub makes is public.")
    ] = False,
) -> int:
    """Write the trained policy as an ordinary model folder, or as a LoRA adapter."""
    from memfactory.commands.export import export as run_export
    from memfactory.core.terminal import Terminal

    return run_export(
        run, output=output, merge=merge, step=step, push_to=push_to_hub, public=public, console=Terminal()
    )
