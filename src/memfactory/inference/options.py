"""What `memfactory infer` is asked to read, to answer and to print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memfactory.core.errors import BadInput


@dataclass(frozen=True)
class InferOptions:
    """Options of `memfactory infer`.

    Either `input` (a text file, `-` is standard input) with one or more `questions`, or `tasks` (JSON
    Lines of tasks). `output` writes JSON Lines of results. `show_memory` prints the memory after every
    block, `json` prints results as JSON instead of text.

    An agent that keeps a memory bank reads dialogues into `bank` (a folder; None is the recipe's own): all
    of `input`, or one `conversation` of it. Without input and questions it chats with `speaker`.
    """

    input: str | None = None
    questions: tuple[str, ...] = ()
    tasks: Path | None = None
    output: Path | None = None
    show_memory: bool = False
    json: bool = False
    bank: Path | None = None
    conversation: str | None = None
    speaker: str = "User"


def check_options(options: InferOptions, agent: str, *, keeps_bank: bool) -> None:
    """Raise `BadInput` for options that ask nothing, or that the agent has no use for."""
    if options.tasks is not None:
        if options.bank is not None or options.conversation is not None:
            raise BadInput(
                "every task of --tasks begins with a bank of its own; leave --bank and --conversation out"
            )
        return
    if not keeps_bank:
        if options.bank is not None or options.conversation is not None:
            raise BadInput(f"agent '{agent}' keeps no memory bank; leave --bank and --conversation out")
        if options.input is None:
            raise BadInput("nothing to read: give --input FILE (or -) with --question, or --tasks FILE.jsonl")
        if not options.questions:
            raise BadInput("nothing to answer: give --question '...'")
        return
    if options.input == "-":
        raise BadInput(
            "a dialogue is read from a file, so that reading can go on after a stop; give --input FILE"
        )
    if options.conversation is not None and options.input is None:
        raise BadInput("--conversation chooses one of the dialogues of a file; give --input FILE")
    if (options.json or options.output is not None) and not options.questions:
        raise BadInput("--json and --output are for answers; give --question '...'")
