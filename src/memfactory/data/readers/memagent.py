"""Long-context files of MemAgent (Parquet, arXiv 2507.02259) and MemFactory (JSON, arXiv 2603.29493)."""

from __future__ import annotations

from collections.abc import Sequence

from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.fields import checked_meta, mapping, record_id, require, require_answers, require_text
from memfactory.data.parsing import Record
from memfactory.data.tasks import FileConfig, load


@register("data", "memagent_parquet", config=FileConfig, source="MemAgent, arXiv 2507.02259")
def memagent_parquet(
    path: str, limit: int | None = None, offset: int = 0, shuffle_seed: int | None = None
) -> Sequence[Task]:
    """MemAgent's Parquet files: `context`, `reward_model.ground_truth`, `extra_info.question`."""
    return load(parse_memagent, path, limit, offset, shuffle_seed)


@register("data", "memfactory_json", config=FileConfig, source="MemFactory, arXiv 2603.29493")
def memfactory_json(
    path: str, limit: int | None = None, offset: int = 0, shuffle_seed: int | None = None
) -> Sequence[Task]:
    """MemFactory's JSON (and MemAgent's eval_*.json): `context`, `input`, `answers`."""
    return load(parse_memfactory, path, limit, offset, shuffle_seed)


@register("data", "hotpotqa_long", config=FileConfig, source="MemAgent, arXiv 2507.02259")
def hotpotqa_long(
    path: str, limit: int | None = None, offset: int = 0, shuffle_seed: int | None = None
) -> Sequence[Task]:
    """HotpotQA-long: MemAgent's Parquet, or JSON as `memfactory data make hotpotqa-long` (musique-long) writes it."""
    return load(parse_hotpotqa_long, path, limit, offset, shuffle_seed)


def parse_memagent(record: Record, where: str, default_id: str) -> Task:
    """A row of MemAgent's tables. Raises `BadInput` naming place and column."""
    question = require_text(record, "extra_info.question", where)
    extra = mapping(require(record, "extra_info", where), f"{where}.extra_info")
    return Task(
        id=record_id(extra, "id", f"{where}.extra_info", default_id),
        question=question,
        evidence=require_text(record, "context", where, empty=True),
        answers=require_answers(record, "reward_model.ground_truth", where),
        meta=checked_meta(
            {key: value for key, value in extra.items() if key not in ("id", "question")}, where
        ),
    )


def parse_memfactory(record: Record, where: str, default_id: str) -> Task:
    """A record of MemFactory's JSON. Raises `BadInput` naming place and field."""
    extra = {key: value for key, value in record.items() if key not in ("id", "context", "input", "answers")}
    return Task(
        id=record_id(record, "id", where, default_id),
        question=require_text(record, "input", where),
        evidence=require_text(record, "context", where, empty=True),
        answers=require_answers(record, "answers", where),
        meta=checked_meta(extra, where),
    )


def parse_hotpotqa_long(record: Record, where: str, default_id: str) -> Task:
    """A record of either layout, told apart by its fields. Raises `BadInput` naming place and field."""
    memagent = "reward_model" in record or "extra_info" in record
    return (parse_memagent if memagent else parse_memfactory)(record, where, default_id)
