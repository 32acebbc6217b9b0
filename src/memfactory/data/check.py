"""`memfactory data check`: does a file fit the reader it is meant for, and if not, which records do not?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.types import Task
from memfactory.data.files import open_records
from memfactory.data.parsing import Record
from memfactory.data.readers import hotpotqa, jsonl, locomo, longmemeval, memagent, msc, musique
from memfactory.data.tasks import Parse, parse_at
from memfactory.data.traces import parse_trace

#: The file formats by the name of the component that reads them.
FORMATS: Mapping[str, Parse[Any]] = {
    "2wikimultihopqa": hotpotqa.parse_two_wiki,
    "hotpotqa": hotpotqa.parse_task,
    "hotpotqa_long": memagent.parse_hotpotqa_long,
    "jsonl": jsonl.make_parse(),
    "locomo": locomo.parse_conversation,
    "longmemeval": longmemeval.parse_longmemeval,
    "memagent_parquet": memagent.parse_memagent,
    "memfactory_json": memagent.parse_memfactory,
    "msc": msc.parse_chat,
    "musique": musique.parse_musique,
    "traces": parse_trace,
}
#: Formats of which a file may be a single record: what tells that an object is one.
_SINGLE: Mapping[str, Callable[[Record], bool]] = {
    "locomo": locomo.is_conversation,
    "msc": msc.is_chat,
}


@dataclass(frozen=True)
class CheckReport:
    """What was found: `records` in the file, `bad` of them, and the messages of the first bad ones.

    `notes` are lines about a file that can be read: how many questions LoCoMo's splits hold, for instance.
    """

    records: int
    bad: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every record can be read."""
        return self.bad == 0


def check_file(format_name: str, path: str, *, most: int = 10) -> CheckReport:
    """Try every record of a file against a format; collect the messages of the first `most` bad ones.

    Raises `BadInput` for an unknown format or a file that cannot be opened at all.
    """
    parse = FORMATS.get(format_name)
    if parse is None:
        hint = did_you_mean(format_name, FORMATS) or f"; known: {', '.join(FORMATS)}"
        raise BadInput(f"unknown data format '{format_name}'{hint}")
    records = open_records(path, single=_SINGLE.get(format_name))
    problems: list[str] = []
    first_use: dict[str, int] = {}
    bad = 0
    for index in range(len(records)):
        problem = ""
        try:
            item = parse_at(records, index, parse)
        except BadInput as error:
            problem = str(error)
        else:
            if isinstance(item, Task) and first_use.setdefault(item.id, index) != index:
                before = records.where(first_use[item.id])
                problem = f"{records.where(index)}: id '{item.id}' was used before, at {before}"
        if problem:
            bad += 1
            problems.extend([problem] if len(problems) < most else [])
    notes = (str(locomo.count_questions(path)),) if format_name == "locomo" and not bad else ()
    return CheckReport(len(records), bad, tuple(problems), notes)
