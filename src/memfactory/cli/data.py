"""`memfactory data`: make data files, and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memfactory.cli.running import Overrides, RecipeName

app = typer.Typer(no_args_is_help=True, help="Make data files, and check them.")
make = typer.Typer(no_args_is_help=True, help="Make data files.")
app.add_typer(make, name="make")

Output = Annotated[
    str, typer.Option("--output", metavar="FILE", help="The file to write; its suffix is its layout.")
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same file.")]


@make.command("hotpotqa-long")
def hotpotqa_long(
    source: Annotated[str, typer.Option("--source", metavar="FILE", help="HotpotQA's own JSON.")],
    output: Output,
    paragraphs: Annotated[int, typer.Option("--paragraphs", min=1, help="Paragraphs of each text.")] = 50,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many questions.")] = None,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Pass over so many questions first.")] = 0,
    seed: Seed = 0,
) -> None:
    """Hide the gold paragraphs of HotpotQA questions among many others (.parquet, .jsonl or .json)."""
    from memfactory.data.make import make_hotpotqa_long

    written = make_hotpotqa_long(
        source=source, paragraphs=paragraphs, output=output, limit=limit, seed=seed, offset=offset
    )
    typer.echo(f"{output}: {written} tasks")


@make.command("facts")
def facts(
    output: Output,
    count: Annotated[int, typer.Option("--count", min=1, help="Tasks to make.")] = 100,
    sections: Annotated[int, typer.Option("--sections", min=1, help="Sections of each text.")] = 3,
    split: Annotated[str, typer.Option("--split", help="train or heldout.")] = "heldout",
    offset: Annotated[int, typer.Option("--offset", min=0, help="Number of the first task.")] = 0,
    seed: Seed = 0,
) -> None:
    """Make tasks of the synthetic reading task (.jsonl or .json)."""
    from memfactory.data.make import make_facts

    written = make_facts(output=output, sections=sections, count=count, seed=seed, split=split, offset=offset)
    typer.echo(f"{output}: {written} tasks")


@app.command("banks")
def banks(
    recipe: RecipeName,
    overrides: Overrides = None,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="FILE.jsonl", help="The file of banks; an unfinished one goes on."),
    ] = Path("banks.jsonl"),
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first dialogues of data.train.")
    ] = None,
) -> int:
    """Let a recipe's agent read its training dialogues once, and keep its memories after each session."""
    from rich.console import Console

    from memfactory.commands.banks import make_banks
    from memfactory.recipe.load import load_recipe

    composed = load_recipe(recipe, overrides or (), command="infer")
    return make_banks(composed, output, Console(stderr=True), limit)


@app.command("check")
def check(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="A data component that reads files.")],
    path: Annotated[str, typer.Argument(metavar="FILE")],
) -> int:
    """Try to read every record of a file, and say which cannot be read."""
    from memfactory.data.check import check_file

    report = check_file(format_name, path)
    for problem in report.problems:
        typer.echo(problem, err=True)
    typer.echo(f"{path}: {report.records} records, {report.bad} bad")
    for note in report.notes:
        typer.echo(note)
    return 0 if report.ok else 2
