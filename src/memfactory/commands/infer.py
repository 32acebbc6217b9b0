"""`memfactory infer`: let the recipe's agent answer questions about a text, or do a file of tasks."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import TaskID

from memfactory.agents.base import keeps_bank
from memfactory.commands.chat import chat
from memfactory.commands.dialogue import read_and_answer
from memfactory.commands.graph import make_collector, open_policy, open_sampler
from memfactory.commands.progress import counting_bar
from memfactory.commands.results import Answers, decided_by, json_for, unanswered_line
from memfactory.core import registry
from memfactory.core.errors import ServiceError
from memfactory.core.files import disk_errors
from memfactory.core.types import Rollout, Task
from memfactory.inference.options import InferOptions, check_options
from memfactory.inference.reading import question_tasks, read_text, result_of, unique_ids
from memfactory.recipe.build import build_agent, build_tasks
from memfactory.recipe.load import Recipe
from memfactory.rollouts.collect import Collector


def infer(recipe: Recipe, options: InferOptions, console: Console, errors: Console) -> int:
    """Answer; results go to `console` (standard output), progress to `errors` (standard error).

    An agent that keeps a memory bank answers from that (`commands.dialogue`), or chats (`commands.chat`).
    Returns 0, or 1 when a task could not be done.
    """
    agent = registry.get("agent", recipe.schema.agent["type"])
    check_options(options, agent.name, keeps_bank=keeps_bank(agent.build))
    if options.tasks is None and keeps_bank(agent.build):
        if options.input is None and not options.questions:
            return chat(recipe, options, console, errors)
        return read_and_answer(recipe, options, console, errors)
    answers = None if options.output is None else Answers(options.output)
    tasks = _tasks(options)
    policy = open_policy(recipe)
    for remark in policy.remarks(recipe):
        errors.print(remark, highlight=False, markup=False, soft_wrap=True)
    if answers is not None:
        tasks = answers.left(tasks, decided_by(recipe, policy), errors)
    if not tasks:
        errors.print("nothing left to do", highlight=False, markup=False)
        return 0
    sampler = open_sampler(recipe, policy)
    try:
        collector = make_collector(recipe, policy, sampler, build_agent(recipe), None, training=False)
        rollouts = _run(collector, tasks, options, answers, console, errors)
    finally:
        sampler.close()
    if options.output is None:
        _print(rollouts, options, console, errors)
    silent = sum(bool(call.problem) for rollout in rollouts for call in rollout.calls)
    if silent:
        line = unanswered_line(silent, sum(len(rollout.calls) for rollout in rollouts))
        errors.print(line, highlight=False, markup=False, soft_wrap=True)
    failed = [rollout for rollout in rollouts if rollout.error is not None]
    if failed and options.output is not None:
        errors.print(
            f"{len(failed)} of {len(rollouts)} tasks failed; first: {failed[0].error}",
            highlight=False,
            markup=False,
        )
    return 1 if failed else 0


def _tasks(options: InferOptions) -> list[Task]:
    if options.tasks is not None:
        tasks: list[Task] = list(
            build_tasks({"type": "jsonl", "path": str(options.tasks), "require_answers": False})
        )
        unique_ids(tasks, str(options.tasks))
        return tasks
    assert options.input is not None
    name = "input" if options.input == "-" else Path(options.input).name
    return question_tasks(read_text(options.input), options.questions, name)


def _run(
    collector: Collector,
    tasks: list[Task],
    options: InferOptions,
    answers: Answers | None,
    console: Console,
    errors: Console,
) -> list[Rollout]:
    """All tasks at once (bounded by the collector), a bar for each; a single task's memory is printed as it is read."""
    bar = counting_bar(errors)
    gate = asyncio.Semaphore(collector.concurrency or len(tasks))
    follow = _follows_memory(len(tasks), options)

    async def one(task: Task, file: Any) -> Rollout:
        watched: TaskID | None = None

        def progress(done: int, total: int, memory: str | None) -> None:
            if watched is not None:
                bar.update(watched, total=total, completed=done)
            if follow and done and memory is not None:
                _print_memory(console, done, memory)
            elif len(tasks) == 1 and not errors.is_terminal and done and (done == total or done % 5 == 0):
                errors.print(f"block {done}/{total}", highlight=False, markup=False)

        async with gate:
            watched = bar.add_task("reading blocks", total=None)
            rollout = await collector.rollout(task, 0, "infer", progress)
        if len(tasks) > 20:
            bar.remove_task(watched)
        if file is not None and answers is not None and rollout.error is None:
            answers.write(file, result_of(rollout, memories=options.show_memory))
        return rollout

    async def all_of_them() -> list[Rollout]:
        with ExitStack() as stack:
            file = None if answers is None else stack.enter_context(answers.begin())
            return list(await asyncio.gather(*(one(task, file) for task in tasks)))

    with disk_errors(options.output or Path(".")), bar:
        return asyncio.run(all_of_them())


def _print(rollouts: list[Rollout], options: InferOptions, console: Console, errors: Console) -> None:
    results = [result_of(rollout, memories=options.show_memory) for rollout in rollouts]
    if options.json:
        value: Any = results[0] if len(results) == 1 else results
        console.file.write(json_for(value, console.encoding) + "\n")
        return
    for result in results:
        if len(results) > 1:
            console.print(f"Q: {result['question']}", highlight=False, markup=False, soft_wrap=True)
        if result["error"] is not None:
            if len(results) == 1:
                raise ServiceError(result["error"])
            errors.print(f"error: {result['error']}", highlight=False, markup=False)
            continue
        if not _follows_memory(len(results), options):
            for number, memory in enumerate(result.get("memories", ()), start=1):
                _print_memory(console, number, memory)
        console.print(result["answer"] or "(no answer)", highlight=False, markup=False, soft_wrap=True)


def _follows_memory(tasks: int, options: InferOptions) -> bool:
    """Whether memories are printed while the text is read; with several tasks they would get mixed up."""
    return tasks == 1 and options.show_memory and not options.json and options.output is None


def _print_memory(console: Console, block: int, memory: str) -> None:
    console.print(f"[memory after block {block}]\n{memory}\n", highlight=False, markup=False, soft_wrap=True)
