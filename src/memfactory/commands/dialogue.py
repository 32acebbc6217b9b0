"""`memfactory infer` with an agent that keeps a memory bank: read a dialogue file into it, answer questions from it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from memfactory.commands.banking import open_keeper
from memfactory.commands.graph import open_policy
from memfactory.commands.memories import counted, memory_line, not_understood, say, say_going_on
from memfactory.commands.progress import counting_bar
from memfactory.commands.results import Answers, decided_by, json_for
from memfactory.core.errors import BadInput, ServiceError, TaskError, did_you_mean
from memfactory.core.files import disk_errors
from memfactory.core.types import Outcome, Rollout, Task
from memfactory.data.dialogue import Dialogue
from memfactory.data.readers.dialogues import read_dialogues
from memfactory.inference.ingest import Part, parts_left
from memfactory.inference.keeper import Keeper, Reply, Taken
from memfactory.inference.options import InferOptions
from memfactory.inference.reading import result_of
from memfactory.memory.report import bank_digest
from memfactory.recipe.load import Recipe

EVERY = "all"


def read_and_answer(recipe: Recipe, options: InferOptions, console: Console, errors: Console) -> int:
    """Read what is not in the bank yet, then answer; answers go to `console`, all else to `errors`.

    Returns 0, or 1 when a question could not be answered, or something that was to be read could not be understood.
    """
    dialogues = _dialogues(options, errors)
    answers = None if options.output is None else Answers(options.output)
    tasks = _tasks(options)
    unread = 0
    with (
        open_keeper(recipe, options.bank, make=options.input is not None, say=partial(say, errors)) as keeper,
        asyncio.Runner() as runner,
    ):
        left = [part for dialogue in dialogues for part in parts_left(dialogue, keeper.bank)]
        unread += runner.run(_take_pending(keeper, errors))
        if options.input is not None:
            unread += runner.run(_read(keeper, left, options, console, errors))
        say(errors, f"{keeper.bank.path}: {counted(len(keeper.memories), 'memory', 'memories')}")
        if answers is not None:
            decided = {**decided_by(recipe, open_policy(recipe)), "bank": bank_digest(keeper.memories)}
            tasks = answers.left(tasks, decided, errors)
        if tasks:
            say_going_on(errors, keeper.going_on)
        rollouts = runner.run(_answer(keeper, tasks, answers))
    results = [_result(rollout) for rollout in rollouts]
    if options.output is None:
        _print(results, options, console, errors)
    failed = [result for result in results if result["error"] is not None]
    if failed and options.output is not None:
        say(errors, f"{len(failed)} of {len(results)} questions failed; first: {failed[0]['error']}")
    return 1 if failed or unread else 0


def _dialogues(options: InferOptions, errors: Console) -> Sequence[Dialogue]:
    """The dialogues to read; what is odd about them is printed. Raises `BadInput` when the choice is not clear."""
    if options.input is None:
        return ()
    file = read_dialogues(options.input)
    ids = [dialogue.id for dialogue in file.dialogues]
    chosen = file.dialogues
    if options.conversation is None and len(ids) > 1:
        raise BadInput(
            f"{options.input}: holds {len(ids)} conversations ({', '.join(ids[:12])}{', …' if ids[12:] else ''}); "
            f"choose one with --conversation ID, or --conversation {EVERY}"
        )
    if options.conversation not in (None, EVERY):
        chosen = tuple(dialogue for dialogue in chosen if dialogue.id == options.conversation)
        if not chosen:
            hint = did_you_mean(str(options.conversation), ids) or f"; there are {', '.join(ids[:12])}"
            raise BadInput(f"{options.input}: no conversation '{options.conversation}'{hint}")
    for line in file.warnings:
        if any(f"dialogue '{dialogue.id}'" in line for dialogue in chosen):
            say(errors, f"warning: {line}")
    return chosen


def _tasks(options: InferOptions) -> list[Task]:
    """The questions, each under an id of its own text: an output file goes on when the same ones are asked again."""
    return [
        Task(
            f"question-{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=4).hexdigest()}",
            text,
            None,
        )
        for text in dict.fromkeys(options.questions)
    ]


async def _take_pending(keeper: Keeper, errors: Console) -> int:
    """Take in what was said in a chat and waits; returns how many messages still do."""
    if not (count := len(keeper.pending)):
        return 0
    say(errors, f"taking in {counted(count, 'message')} that waited")
    for taken in await keeper.take_in():
        if taken.error is not None:
            say(errors, f"{taken.session.turns[0].text[:60]}: {taken.error}; given up")
        elif taken.unread:
            say(errors, f"{taken.session.turns[0].text[:60]}: {not_understood(taken)}; it waits on")
    return len(keeper.pending)


async def _read(
    keeper: Keeper, parts: Sequence[Part], options: InferOptions, console: Console, errors: Console
) -> int:
    """Session after session, each one commit; a bar, or a line for each where there is no terminal.

    Returns how many sessions could not be understood.
    """
    if not parts:
        say(errors, f"{options.input}: everything in it is in the bank already")
        return 0
    if again := sum(1 for part in parts if part.attempts):
        say(
            errors,
            f"{options.input}: {counted(again, 'session')} could not be understood before, asking again",
        )
    elif (done := parts[0].number - 1) > 0:
        say(errors, f"{options.input}: going on after session {done} of {parts[0].total}")
    unread = 0
    bar = counting_bar(errors)
    with bar:
        watched = bar.add_task("reading sessions", total=len(parts))
        for part in parts:
            try:
                taken = await keeper.read(part)
            except TaskError as error:
                before = counted(part.number - 1, "session")
                raise TaskError(f"{options.input}: {error}; {before} before it in the bank") from error
            bar.advance(watched)
            unread += taken.unread
            shown = options.show_memory and not options.json and options.output is None
            if shown and not taken.unread:
                _show(taken, part, console)
            if taken.remembered.errors or taken.unread or not (shown or errors.is_terminal):
                say(errors, f"{part.session.id} ({part.number}/{part.total}): {_summary(taken)}")
    if unread:
        say(
            errors,
            f"{options.input}: {counted(unread, 'session')} of {len(parts)} could not be understood and "
            f"{'is' if unread == 1 else 'are'} not in the bank; the same command asks again",
        )
    return unread


def _show(taken: Taken, part: Part, console: Console) -> None:
    say(console, f"[session {part.number} of {part.total}: {part.session.id}] {part.session.time}".rstrip())
    for line in taken.changes or ["(nothing changed)"]:
        say(console, f"  {line}")


def _summary(taken: Taken) -> str:
    if taken.unread:
        return not_understood(taken)
    done = [f"{kind} {count}" for kind, count in taken.remembered.operations.items() if count]
    wrong = taken.remembered.errors
    return (", ".join(done) or "nothing") + (
        f"; {counted(len(wrong), 'error')} in replies: {'; '.join(wrong[:3])}" if wrong else ""
    )


async def _answer(keeper: Keeper, tasks: Sequence[Task], answers: Answers | None) -> list[Rollout]:
    """All questions at once, against the same bank; with an output file each answer is written when it is there."""

    async def one(task: Task, file: Any) -> Rollout:
        rollout = Rollout(task, 0)
        try:
            reply = await keeper.ask(task.question, task.id)
        except (TaskError, ServiceError) as error:
            rollout.error = str(error)
            return rollout
        rollout.calls, rollout.outcome = list(reply.calls), Outcome(reply.reply, info={"reply": reply})
        if file is not None and answers is not None:
            answers.write(file, _result(rollout))
        return rollout

    if answers is None:
        return list(await asyncio.gather(*(one(task, None) for task in tasks)))
    with disk_errors(answers.path, option="--output"), answers.begin() as file:
        return list(await asyncio.gather(*(one(task, file) for task in tasks)))


def _result(rollout: Rollout) -> dict[str, Any]:
    """As for every agent, and the memories behind the answer."""
    result = result_of(rollout, memories=False)
    reply = rollout.outcome.info["reply"] if rollout.outcome is not None else None
    if isinstance(reply, Reply):
        result["used"] = [
            {"id": item.id, "text": item.text, "time": item.updated_time, "sources": list(item.sources)}
            for item in reply.used
        ]
        result["retrieved"] = [item.id for item in reply.found]
    return result


def _print(
    results: Sequence[dict[str, Any]], options: InferOptions, console: Console, errors: Console
) -> None:
    if options.json:
        value = results[0] if len(results) == 1 else list(results)
        console.file.write(json_for(value, console.encoding) + "\n")
        return
    for result in results:
        if len(results) > 1:
            say(console, f"Q: {result['question']}")
        if result["error"] is not None:
            if len(results) == 1:
                raise ServiceError(result["error"])
            say(errors, f"error: {result['error']}")
            continue
        say(console, result["answer"] or "(no answer)")
        for used in result["used"]:
            say(console, f"  {memory_line(used['id'], used['time'], used['text'])}")
