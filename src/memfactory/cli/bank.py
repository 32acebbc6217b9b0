"""`memfactory bank`: what is in a memory bank, and moving it."""

from __future__ import annotations

from typing import Annotated

import typer

from memfactory.cli.printing import echo

app = typer.Typer(no_args_is_help=True, help="Look into memory banks, and move what is in them.")

Bank = Annotated[str, typer.Argument(metavar="PATH", help="The bank's folder.")]


@app.command("inspect")
def inspect(
    path: Bank,
    item_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="One memory, with all it holds.")
    ] = None,
    query: Annotated[str | None, typer.Option("--query", help="Those that share words with it.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many memories.")] = 20,
) -> None:
    """Show memories: the newest ones, those that fit a query (BM25), or one."""
    from memfactory.cli.tables import item_table, items_table
    from memfactory.core.errors import BadInput, did_you_mean
    from memfactory.core.terminal import Terminal
    from memfactory.memory.lance import LanceBank

    with LanceBank(path, mode="read") as bank:
        if item_id is not None:
            item = bank.get(item_id)
            if item is None:
                ids = [other.id for other in bank.items(embeddings=False)]
                raise BadInput(f"{path}: no memory '{item_id}'{did_you_mean(item_id, ids)}")
            Terminal().print(item_table(item))
            return
        if query is not None:
            items = [hit.item for hit in bank.search_text(query, limit)]
        else:
            items = list(bank.items(embeddings=False))[-limit:]
        Terminal().print(items_table(items))
        echo(f"{path}: {len(items)} of {len(bank)} memories shown")


@app.command("stats")
def stats(path: Bank) -> None:
    """Count what is in a bank."""
    from memfactory.cli.tables import stats_tables
    from memfactory.core.terminal import Terminal
    from memfactory.memory.lance import LanceBank
    from memfactory.memory.report import bank_stats

    with LanceBank(path, mode="read") as bank:
        Terminal().print(*stats_tables(bank_stats(bank)), sep="\n")


@app.command("export")
def export(
    path: Bank,
    output: Annotated[str, typer.Option("--output", metavar="FILE", help="The JSON Lines to write.")],
    embeddings: Annotated[bool, typer.Option(help="Leave embeddings out to get a readable file.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a bank's memories as JSON Lines."""
    from memfactory.memory.lance import LanceBank
    from memfactory.memory.transfer import export_bank

    with LanceBank(path, mode="read") as bank:
        written = export_bank(bank, output, embeddings=embeddings, replace=force)
    echo(f"{output}: {written} memories")


@app.command("import")
def import_(
    path: Bank,
    source: Annotated[str, typer.Option("--input", metavar="FILE", help="The JSON Lines to read.")],
    embedder: Annotated[
        str | None,
        typer.Option("--embedder", metavar="NAME", help="Embed all anew: minilm, a folder or a hub id."),
    ] = None,
    renumber: Annotated[bool, typer.Option("--renumber", help="Give new ids.")] = False,
) -> None:
    """Add the memories of a JSON Lines file to a bank, all or none; a bank that is not there is made."""
    from memfactory.memory.embedders import make_embedder
    from memfactory.memory.transfer import import_bank

    chosen = make_embedder(embedder) if embedder is not None else None
    read = import_bank(source, path, embedder=chosen, renumber=renumber)
    echo(f"{path}: {read} memories added")


@app.command("repair")
def repair(
    path: Bank,
    embedder: Annotated[
        str | None,
        typer.Option("--embedder", metavar="NAME", help="Whose its vectors are, where the bank cannot tell."),
    ] = None,
    keep_damaged: Annotated[
        bool, typer.Option("--keep-damaged", help="Keep what can be read, also where its checksum is wrong.")
    ] = False,
) -> None:
    """Make a lost or damaged bank.json anew, and go back to the newest state that can be read. Deletes nothing."""
    from memfactory.memory.repair import repair_bank

    done = repair_bank(path, embedder, keep_damaged=keep_damaged)
    for line in done or ["nothing to repair"]:
        echo(f"{path}: {line}")
