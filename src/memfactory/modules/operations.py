"""Operations on a memory bank: what a manager may order, what a reply orders, and what of it is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from memfactory.memory.bank import MemoryBank
from memfactory.memory.item import MemoryItem, Vector
from memfactory.modules.extractors import Fact
from memfactory.modules.ids import id_as_said, shown_id, whole_number
from memfactory.modules.json_replies import Understood, clean, read_list, share_understood

Kind = Literal["add", "update", "delete", "noop"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OnError = Literal["skip", "void"]
_WORDS: Mapping[str, Kind] = {
    "ADD": "add",
    "UPDATE": "update",
    "DELETE": "delete",
    "DEL": "delete",
    "NOOP": "noop",
    "NONE": "noop",
}


@dataclass(frozen=True)
class Operation:
    """One order. `id` names a memory of the bank; an add has none. `text` is the new text, if there is one.

    `fact` is where an added text comes from, for its title, type and tags.
    """

    kind: Kind
    id: str = ""
    text: str = ""
    fact: Fact = field(default_factory=lambda: Fact(""))


@dataclass(frozen=True)
class Plan:
    """What a reply orders, in order, and one line for everything that was wrong with it.

    `malformed` tells that the reply itself could not be read as a whole, not that an order makes no sense; `understood`
    how much of it could be read.
    """

    operations: tuple[Operation, ...] = ()
    errors: tuple[str, ...] = ()
    malformed: bool = False
    understood: Understood = "whole"

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that the operations put into a bank."""
        return tuple(o.text for o in self.operations if o.kind in ("add", "update"))

    def count(self, kind: Kind) -> int:
        """How many operations of a kind there are."""
        return sum(operation.kind == kind for operation in self.operations)


def parse_addressed(reply: str, facts: Sequence[Fact] = ()) -> Plan:
    """The plan of a reply `{"operations": [{"op", "id", "text"}, ...]}` with ids of the bank. Never raises.

    ADD needs `text`, UPDATE `id` and `text`, DELETE `id`, NOOP nothing. An added text that is one of the `facts`
    gets that fact's title, type and tags.
    """
    known = {fact.text: fact for fact in facts}
    plan = _Parser(reply)
    for number, kind, entry in plan.entries():
        item_id, text = id_as_said(entry.get("id")), clean(entry.get("text"))
        if kind == "noop":
            plan.operations.append(Operation("noop"))
        elif kind != "add" and not item_id:
            plan.wrong(number, f"{kind} without an id")
        elif kind != "delete" and not text:
            plan.wrong(number, f"{kind} without a text")
        elif kind == "add":
            plan.operations.append(Operation("add", text=text, fact=known.get(text, Fact(text))))
        else:
            plan.operations.append(Operation(kind, item_id, text if kind == "update" else ""))
    return plan.finished()


def parse_numbered(reply: str, existing: Sequence[MemoryItem], candidates: Sequence[Fact]) -> Plan:
    """The plan of a reply `{"operations": [{"id", "op", "key", "value"}, ...]}`. Never raises.

    Ids are numbers: 1 … E the existing memories, then the candidates. Existing ones may be deleted or left
    (DEL, NONE), candidates added as they are (ADD), added in other words (UPDATE, with a `value`) or left.
    """
    plan = _Parser(reply)
    seen: set[int] = set()
    for number, kind, entry in plan.entries():
        place = whole_number(entry.get("id"))
        if place is None or not 1 <= place <= len(existing) + len(candidates):
            plan.wrong(number, "the id is none of the numbers shown")
            continue
        if place in seen:
            plan.wrong(number, f"the id {place} was used before")
            continue
        seen.add(place)
        if kind == "noop":
            plan.operations.append(Operation("noop"))
        elif place <= len(existing):
            if kind == "delete":
                plan.operations.append(Operation("delete", existing[place - 1].id))
            else:
                plan.wrong(number, f"{kind} is not allowed on the existing memory {place}")
        elif kind == "delete":
            plan.wrong(number, f"delete is not allowed on the candidate {place}")
        else:
            fact, value = candidates[place - 1 - len(existing)], clean(entry.get("value"))
            if kind == "update" and not value:
                plan.wrong(number, "update without a value")
                continue
            text, key = value or fact.text, clean(entry.get("key")) or fact.key
            plan.operations.append(Operation("add", text=text, fact=replace(fact, key=key)))
    return plan.finished()


def settle(plan: Plan, bank: MemoryBank, shown: Sequence[MemoryItem], on_error: OnError) -> Plan:
    """What of a plan is carried out: each order is legal after those before it, on the memories that were shown.

    An unknown id, a second order for the same memory, and a text that the bank has already are errors. With
    `skip` those orders are left out, with `void` any error leaves nothing of the plan. An update to the text that
    the memory has already is a noop: what was only said again is as old as it was.
    """
    ids = {item.id for item in shown}
    changed: set[str] = set()
    texts: set[str] = set()
    legal, errors = [], list(plan.errors)
    for operation in (_with_shown_id(operation, ids) for operation in plan.operations):
        if operation.kind == "noop":
            legal.append(operation)
            continue
        if problem := _problem(operation, bank, ids, changed, texts):
            errors.append(problem)
            continue
        legal.append(Operation("noop") if _same(operation, bank) else operation)
        if operation.id:
            changed.add(operation.id)
        if operation.text:
            texts.add(operation.text)
    if errors and on_error == "void":
        legal = []
    return Plan(tuple(legal), tuple(errors), plan.malformed, plan.understood)


def is_lost(ordered: Plan, settled: Plan, bank: MemoryBank) -> bool:
    """Whether a reply was wrong and nothing comes of it, and the bank does not have already what it says."""
    if not settled.errors or settled.operations or (not ordered.operations and ordered.understood == "whole"):
        return False
    return not ordered.operations or not all(o.text and bank.with_text(o.text) for o in ordered.operations)


def carry_out(
    plan: Plan,
    bank: MemoryBank,
    vectors: Mapping[str, Vector | None],
    *,
    session: str = "",
    time: str = "",
    sources: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Make the changes of a settled plan, all of them or none; `vectors` has the embeddings of `plan.texts`.

    `sources` are the ids of the turns on which each text rests; an updated memory keeps those it had before.
    """
    rests_on = sources or {}
    with bank.transaction():
        for operation in plan.operations:
            when = {"session": session, "time": time}
            if operation.kind == "add":
                fact = operation.fact
                about: dict[str, Any] = {"key": fact.key, "type": fact.type, "tags": fact.tags}
                about["sources"] = rests_on.get(operation.text, ())
                bank.add(operation.text, embedding=vectors[operation.text], **about, **when)
            elif operation.kind == "update":
                old = bank.get(operation.id)
                before = old.sources if old is not None else ()
                bank.update(
                    operation.id,
                    text=operation.text,
                    embedding=vectors[operation.text],
                    key="",  # a title of the old text may not fit the new one
                    sources=dict.fromkeys((*before, *rests_on.get(operation.text, ()))),
                    **when,
                )
            elif operation.kind == "delete":
                bank.delete(operation.id)


class _Parser:
    """The entries of a reply one by one, and what was wrong with them."""

    def __init__(self, reply: str) -> None:
        self.reading = read_list(reply, "operations")
        self.operations: list[Operation] = []
        self.errors = list(self.reading.errors)
        self.malformed = bool(self.reading.errors)

    def entries(self) -> list[tuple[int, Kind, Mapping[str, Any]]]:
        """Number, kind and fields of the entries that are operations; the others are errors."""
        found = []
        for number, entry in enumerate(self.reading.entries, start=1):
            word = entry.get("op") if isinstance(entry, dict) else None
            kind = _WORDS.get(word.strip().upper()) if isinstance(word, str) else None
            if kind is None:
                self.malformed = True
                self.wrong(number, "no operation that is known")
            else:
                found.append((number, kind, entry))
        return found

    def wrong(self, number: int, problem: str) -> None:
        self.errors.append(f"operation {number}: {problem}")

    def finished(self) -> Plan:
        understood = share_understood(self.reading, len(self.operations))
        return Plan(tuple(self.operations), tuple(self.errors), self.malformed, understood)


def _problem(
    operation: Operation, bank: MemoryBank, shown: set[str], changed: set[str], texts: set[str]
) -> str:
    """Why an operation is not legal after those before it; empty when it is."""
    if operation.id and (operation.id not in shown or operation.id not in bank):
        return f"{operation.kind}: there is no memory '{operation.id[:40]}' among those shown"
    if operation.id in changed:
        return f"{operation.kind}: '{operation.id}' was changed by an operation before"
    if operation.kind == "delete":
        return ""
    others = [item for item in bank.with_text(operation.text) if item.id not in {operation.id, *changed}]
    if others or operation.text in texts:
        return f"{operation.kind}: the bank has exactly this text already"
    return ""


def _same(operation: Operation, bank: MemoryBank) -> bool:
    """Whether an update says what its memory says already."""
    item = bank.get(operation.id) if operation.kind == "update" else None
    return item is not None and item.text == operation.text


def _with_shown_id(operation: Operation, shown: set[str]) -> Operation:
    """The operation with the id of the memory that was shown, where a reply writes it otherwise."""
    return replace(operation, id=shown_id(operation.id, shown) or operation.id)
