"""`memfactory data`: what data there are; fetch, make and check data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memfactory.cli.printing import echo
from memfactory.cli.running import Overrides, RecipeName

app = typer.Typer(no_args_is_help=True, help="List, fetch, make and check data.")
make = typer.Typer(no_args_is_help=True, help="Make data files.")
app.add_typer(make, name="make")

Output = Annotated[
    str, typer.Option("--output", metavar="FILE", help="The file to write; its suffix is its layout.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same file.")]


Paragraphs = Annotated[int, typer.Option("--paragraphs", min=1, help="Paragraphs of each text.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many questions.")]
Offset = Annotated[int, typer.Option("--offset", min=0, help="Pass over so many questions first.")]
Length = Annotated[int, typer.Option("--length", min=1, help="Tokens of each text.")]
Count = Annotated[int, typer.Option("--count", min=1, help="Tasks to make.")]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", metavar="MODEL", help="The model that tokens are counted for; else an estimate."
    ),
]
Haystack = Annotated[
    str | None, typer.Option("--haystack", metavar="FILE", help="A text file to hide things in.")
]


@make.command("hotpotqa-long")
def hotpotqa_long(
    source: Annotated[str, typer.Option("--source", metavar="FILE", help="HotpotQA's own JSON.")],
    output: Output,
    paragraphs: Paragraphs = 50,
    limit: Limit = None,
    offset: Offset = 0,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Hide the gold paragraphs of HotpotQA questions among many others (.parquet, .jsonl or .json)."""
    _check_output(output, force)
    _make_long("hotpotqa", source, output, paragraphs, limit, offset, seed)


@make.command("2wikimultihopqa-long")
def two_wiki_long(
    source: Annotated[str, typer.Option("--source", metavar="FILE", help="2WikiMultihopQA's own JSON.")],
    output: Output,
    paragraphs: Paragraphs = 50,
    limit: Limit = None,
    offset: Offset = 0,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """The same with 2WikiMultihopQA; `hotpotqa_long` reads the file."""
    _check_output(output, force)
    _make_long("2wikimultihopqa", source, output, paragraphs, limit, offset, seed)


@make.command("musique-long")
def musique_long(
    source: Annotated[str, typer.Option("--source", metavar="FILE", help="MuSiQue's own JSON Lines.")],
    output: Output,
    paragraphs: Paragraphs = 50,
    limit: Limit = None,
    offset: Offset = 0,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """The same with MuSiQue; `hotpotqa_long` reads the file."""
    _check_output(output, force)
    _make_long("musique", source, output, paragraphs, limit, offset, seed)


def _check_output(output: str, force: bool) -> None:
    """Before any work: what is in the way is told at once."""
    from memfactory.core.files import check_new_file

    check_new_file(Path(output).expanduser(), force=force)


def _make_long(
    benchmark: str, source: str, output: str, paragraphs: int, limit: int | None, offset: int, seed: int
) -> None:
    from memfactory.data.make import make_long

    written = make_long(
        benchmark, source=source, paragraphs=paragraphs, output=output, limit=limit, seed=seed, offset=offset
    )
    echo(f"{output}: {written} tasks")


@make.command("ruler")
def ruler(
    task: Annotated[str, typer.Option("--task", help="niah_single_1, ..., vt, cwe, fwe, qa_1, qa_2.")],
    output: Output,
    length: Length = 4096,
    count: Count = 100,
    haystack: Haystack = None,
    questions: Annotated[
        str | None,
        typer.Option("--questions", metavar="FILE", help="SQuAD's JSON for qa_1, HotpotQA's for qa_2."),
    ] = None,
    tokenizer: Tokenizer = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Make tasks of RULER (.jsonl or .json); `jsonl` reads the file."""
    _check_output(output, force)
    from memfactory.data.make import make_tasks
    from memfactory.data.synthetic.ruler import ruler as tasks

    made = tasks(task, length, count, seed, haystack, questions, tokenizer)
    echo(f"{output}: {make_tasks(made, output)} tasks")


@make.command("babilong")
def babilong(
    task: Annotated[str, typer.Option("--task", help="qa1, qa2, qa3, qa4 or qa5.")],
    output: Output,
    length: Length = 4096,
    count: Count = 100,
    haystack: Haystack = None,
    tokenizer: Tokenizer = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Make tasks of the BABILong kind (.jsonl or .json); `jsonl` reads the file."""
    _check_output(output, force)
    from memfactory.data.make import make_tasks
    from memfactory.data.synthetic.babilong import babilong as tasks

    made = tasks(task, length, count, seed, haystack, tokenizer)
    echo(f"{output}: {make_tasks(made, output)} tasks")


@make.command("facts")
def facts(
    output: Output,
    count: Annotated[int, typer.Option("--count", min=1, help="Tasks to make.")] = 100,
    sections: Annotated[int, typer.Option("--sections", min=1, help="Sections of each text.")] = 3,
    split: Annotated[str, typer.Option("--split", help="train or heldout.")] = "heldout",
    offset: Annotated[int, typer.Option("--offset", min=0, help="Number of the first task.")] = 0,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Make tasks of the synthetic reading task (.jsonl or .json)."""
    _check_output(output, force)
    from memfactory.data.make import make_facts

    written = make_facts(output=output, sections=sections, count=count, seed=seed, split=split, offset=offset)
    echo(f"{output}: {written} tasks")


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
    from memfactory.commands.banks import make_banks
    from memfactory.core.terminal import Terminal
    from memfactory.recipe.load import load_recipe

    composed = load_recipe(recipe, overrides or (), command="infer")
    return make_banks(composed, output, Terminal(stderr=True), limit)


@app.command("list")
def list_() -> None:
    """Show every public or generated data set: what it is, how large, under which licence, how to get it."""
    from rich.table import Table

    from memfactory.core.terminal import Terminal
    from memfactory.data.catalog import CATALOG

    table = Table("data set", "what", "reader", "size", "licence", "get it")
    for entry in CATALOG:
        parts = f"fetch {entry.name} ({', '.join(entry.parts)})" if entry.parts else ""
        table.add_row(
            entry.name,
            entry.what,
            entry.reader,
            entry.size,
            entry.licence,
            "; ".join(filter(None, (parts, entry.make))),
        )
    Terminal().print(table)


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set (see: memfactory data list).")],
    parts: Annotated[
        list[str] | None, typer.Argument(metavar="[PART]...", help="Only these parts of it.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="FOLDER", help="Where to (default: data/NAME).")
    ] = None,
) -> None:
    """Download a public data set, or say which files to get from where."""
    from memfactory.data.fetch import fetch as download

    for path in download(name, parts or (), output, say=lambda line: echo(line, err=True)):
        echo(path)


@app.command("check")
def check(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="A data component that reads files.")],
    path: Annotated[str, typer.Argument(metavar="FILE")],
) -> int:
    """Try to read every record of a file, and say which cannot be read."""
    from memfactory.data.check import check_file

    report = check_file(format_name, path)
    for problem in report.problems:
        echo(problem, err=True)
    echo(f"{path}: {report.records} records, {report.bad} bad")
    for note in report.notes:
        echo(note)
    return 0 if report.ok else 2
