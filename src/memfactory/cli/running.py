"""`memfactory train`, `eval` and `infer`: compose the recipe, then show it, plan it, or run it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from memfactory.core.errors import BadInput
from memfactory.core.stopping import Stopped, stopped_by_signals
from memfactory.evaluation.options import DEFAULT_RECIPE, EvalOptions
from memfactory.inference.options import InferOptions, check_options

if TYPE_CHECKING:
    from memfactory.core.ranks import Ranks
    from memfactory.recipe.load import Recipe

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of one that ships (see: recipes).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE | GROUP=OPTION | ~KEY]...", help="Changes, e.g. trainer.steps=2 model=smollm2."
    ),
]
OutputDir = Annotated[
    Path | None, typer.Option("--output-dir", "-o", help="The run folder (default: the recipe's output_dir).")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and print the plan; start nothing.")
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print the resolved recipe and where each value came from.")
]


def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    dry_run: DryRun = False,
    print_config: PrintConfig = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over: delete what an earlier run left in the run folder.")
    ] = False,
    nproc: Annotated[
        int, typer.Option("--nproc", min=1, help="Ranks on this machine (one for each GPU).")
    ] = 1,
    nnodes: Annotated[int, typer.Option("--nnodes", min=1, help="Machines of the run.")] = 1,
    node_rank: Annotated[int, typer.Option("--node-rank", min=0, help="Which of them this one is.")] = 0,
    master_addr: Annotated[
        str | None, typer.Option("--master-addr", help="The machine with --node-rank 0.")
    ] = None,
    master_port: Annotated[int, typer.Option("--master-port", help="A free port there.")] = 29500,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", metavar="8xH100-80G", help="With --dry-run: estimate the memory on these."),
    ] = None,
    gpu_memory: Annotated[
        float | None, typer.Option("--gpu-memory", metavar="GIB", help="The same, by a GPU's memory alone.")
    ] = None,
) -> int:
    """Train the policy of a recipe. The same command resumes a run that was stopped."""
    from memfactory.training.launch import Layout, on_ranks

    if gpus is not None or gpu_memory is not None:
        return _estimate(recipe, overrides, dry_run, gpus, gpu_memory, nproc, nnodes)
    layout = Layout(nproc, nnodes, node_rank, master_addr, master_port)

    def start(composed: Recipe) -> int:
        def work(ranks: Ranks) -> int:
            from memfactory.commands.train import train as run
            from memfactory.core.terminal import Terminal

            code = run(composed, Terminal(quiet=not ranks.first), fresh=fresh, ranks=ranks)
            ranks.leave()
            return code

        where = [] if output_dir is None else ["--output-dir", str(output_dir)]
        arguments = ["train", recipe, *(overrides or ()), *where, *(["--fresh"] if fresh else [])]
        return _until_stopped(lambda: on_ranks(layout, arguments, work))

    return _run("train", recipe, overrides, output_dir, dry_run, print_config, start)


def evaluate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE[,RECIPE]...] [KEY=VALUE | GROUP=OPTION | ~KEY]...",
            help=f"Recipes (default: {DEFAULT_RECIPE}), then changes, e.g. evaluation.limit=50.",
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", metavar="A,B", help="Options of the group model, folders or hub ids."),
    ] = None,
    agents: Annotated[
        str | None,
        typer.Option("--agents", metavar="A,B", help="Options of the group agent, with prompts to match."),
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option("--benchmarks", metavar="A,B", help="Options of the group benchmark, or YAML files."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="RUN_A RUN_B",
            help="Compare two finished results (files or run folders, #MODEL/AGENT to name one of several).",
        ),
    ] = None,
    output_dir: OutputDir = None,
    dry_run: DryRun = False,
    print_config: PrintConfig = False,
) -> int:
    """Score agents on held-out tasks, or compare two results. The same command goes on with what was stopped."""
    if compare is not None:
        if arguments or models or agents or benchmarks or output_dir or dry_run or print_config:
            raise BadInput("--compare RUN_A RUN_B compares finished results and takes nothing else")
        from memfactory.commands.evaluate import compare as compare_results
        from memfactory.core.terminal import Terminal

        return compare_results(*compare, Terminal())
    given = list(arguments or ())
    named = given.pop(0) if given and not given[0].startswith("~") and "=" not in given[0] else DEFAULT_RECIPE
    options = EvalOptions(
        recipes=_names("RECIPE", named),
        models=_names("--models", models),
        agents=_names("--agents", agents),
        benchmarks=_names("--benchmarks", benchmarks),
        overrides=tuple(given),
        output_dir=None if output_dir is None else str(output_dir),
    )
    return _evaluate(options, dry_run, print_config)


def _evaluate(options: EvalOptions, dry_run: bool, print_config: bool) -> int:
    from memfactory.commands.cells import make_cells
    from memfactory.core.terminal import Terminal

    cells = make_cells(options, complete=not print_config)
    if print_config:
        sys.stdout.write("---\n".join(cell.recipe.annotated_yaml() for cell in cells))
        return 0
    if dry_run:
        from memfactory.commands.plan import plan

        for cell in cells:
            Terminal().print(plan(cell.recipe, "eval"))
        return 0
    from memfactory.commands.evaluate import evaluate as run

    return _until_stopped(lambda: run(cells, Terminal()))


def _names(option: str, text: str | None) -> tuple[str, ...]:
    """The names of a list with commas."""
    names = tuple(name.strip() for name in text.split(",")) if text is not None else ()
    if "" in names:
        raise BadInput(f"{option}: '{text}' names nothing between two commas")
    return names


def infer(
    recipe: RecipeName,
    overrides: Overrides = None,
    input: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", metavar="FILE", help="The text to read (- is standard input), or the dialogue."
        ),
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option("--question", "-q", help="A question about it; may be repeated.")
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option("--tasks", metavar="FILE.jsonl", help="Tasks instead of --input, one a line."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE.jsonl", help="Write the results here, one a line."),
    ] = None,
    show_memory: Annotated[
        bool, typer.Option("--show-memory", help="Print the memory after every block.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    bank: Annotated[
        Path | None,
        typer.Option(
            "--bank", metavar="PATH", help="The memory bank's folder (default: banks/<recipe name>)."
        ),
    ] = None,
    conversation: Annotated[
        str | None,
        typer.Option("--conversation", metavar="ID", help="Which dialogue of the file; 'all' for every one."),
    ] = None,
    speaker: Annotated[
        str, typer.Option("--speaker", metavar="NAME", help="Your name in the chat.")
    ] = "User",
    output_dir: OutputDir = None,
    dry_run: DryRun = False,
    print_config: PrintConfig = False,
) -> int:
    """Read a text and answer questions about it, or do every task of a file.

    An agent with a memory bank reads a dialogue into its bank, answers from it, or chats if nothing is asked.
    """
    asked = InferOptions(
        input=input,
        questions=tuple(question or ()),
        tasks=tasks,
        output=output,
        show_memory=show_memory,
        json=json,
        bank=bank,
        conversation=conversation,
        speaker=speaker,
    )
    if not print_config:
        _check(asked)

    def check(composed: Recipe) -> None:
        from memfactory.agents.base import keeps_bank
        from memfactory.core import registry

        agent = registry.get("agent", composed.schema.agent["type"])
        check_options(asked, agent.name, keeps_bank=keeps_bank(agent.build))

    def start(composed: Recipe) -> int:
        from memfactory.commands.infer import infer as run
        from memfactory.core.terminal import Terminal

        def work() -> int:
            return run(composed, asked, Terminal(), Terminal(stderr=True))

        chats = asked.tasks is None and asked.input is None and not asked.questions
        return work() if chats else _until_stopped(work)  # a chat has its own rules

    return _run("infer", recipe, overrides, output_dir, dry_run, print_config, start, check)


def _until_stopped(work: Callable[[], int]) -> int:
    """The exit code of work that a signal may stop. What the signal says is told here: click knows Ctrl-C alone."""
    try:
        with stopped_by_signals():
            return work()
    except Stopped as stop:
        print(str(stop), file=sys.stderr)
        return stop.exit_code


def _check(asked: InferOptions) -> None:
    """What is wrong whatever the agent is."""
    if asked.tasks is not None:
        if asked.input is not None or asked.questions:
            raise BadInput("--tasks brings its own texts and questions; leave --input and --question out")
        if not asked.tasks.is_file():
            raise BadInput(f"{asked.tasks}: no such file; --tasks takes a JSON Lines file of tasks")
    elif asked.input not in (None, "-") and not Path(str(asked.input)).exists():
        raise BadInput(f"{asked.input}: no such file; --input takes a file, or - for standard input")


def _estimate(
    name: str,
    overrides: list[str] | None,
    dry_run: bool,
    gpus: str | None,
    gpu_memory: float | None,
    nproc: int,
    nnodes: int,
) -> int:
    """Print what the recipe needs on GPUs that need not be here; data and weights may be missing too."""
    if not dry_run:
        raise BadInput("--gpus and --gpu-memory estimate memory; add --dry-run")
    from memfactory.commands.fit import parse_gpus
    from memfactory.commands.fit_table import fit_table
    from memfactory.core.terminal import Terminal
    from memfactory.recipe.load import load_recipe

    where = parse_gpus(gpus, gpu_memory, nproc, nnodes)
    Terminal().print(fit_table(load_recipe(name, overrides or (), command="infer"), where))
    return 0


def _run(
    command: Literal["train", "infer"],
    name: str,
    overrides: list[str] | None,
    output_dir: Path | None,
    dry_run: bool,
    print_config: bool,
    start: Callable[[Recipe], int],
    check: Callable[[Recipe], None] = lambda composed: None,
) -> int:
    from memfactory.recipe.load import load_recipe

    # A recipe that still lacks a value can be looked at, not run.
    needed = None if print_config else command
    composed = load_recipe(name, overrides or (), command=needed, output_dir=output_dir)
    if print_config:
        sys.stdout.write(composed.annotated_yaml())
        return 0
    check(composed)
    if dry_run:
        from memfactory.commands.plan import plan
        from memfactory.core.terminal import Terminal

        Terminal().print(plan(composed, command))
        return 0
    return start(composed)
