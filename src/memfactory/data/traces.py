"""Supervised traces, for the `sft` stage: calls with the completion that is to be learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from memfactory.core.bounds import AtLeastOne, Count, Seed, Share, Some
from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.types import Message
from memfactory.data.fields import kind_of, require, require_text
from memfactory.data.parsing import Record
from memfactory.data.tasks import FileConfig, LazySequence, T, load

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Trace:
    """One call to imitate: the module that asks, its chat, and the reply (without end-of-sequence token)."""

    module: str
    messages: tuple[Message, ...]
    completion: str


@register("data", "traces", config=FileConfig)
def traces(
    path: str, limit: int | None = None, offset: int = 0, shuffle_seed: int | None = None
) -> Sequence[Trace]:
    """Supervised calls from JSON Lines: `module`, `messages` ([{role, content}]), `completion`."""
    return load(parse_trace, path, limit, offset, shuffle_seed)


def parse_trace(record: Record, where: str, default_id: str = "") -> Trace:
    """A record as a trace (which has no id). Raises `BadInput` naming place and field."""
    listed = require(record, "messages", where)
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{where}: field 'messages' must be a list that is not empty, not {kind_of(listed)}")
    return Trace(
        module=require_text(record, "module", where),
        messages=tuple(_message(item, where) for item in listed),
        completion=require_text(record, "completion", where),
    )


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise BadInput(f"{where}: field 'messages' must hold objects, not {kind_of(item)}")
    role = require_text(item, "role", where)
    if role not in _ROLES:
        raise BadInput(f"{where}: role '{role}' in field 'messages' is none of {', '.join(_ROLES)}")
    content = require_text(item, "content", where, empty=True)
    return Message(cast(Literal["system", "user", "assistant"], role), content)


@dataclass(frozen=True)
class FactsTracesConfig:
    """Fields of `facts_traces`, described at `memfactory.data.synthetic.facts_traces.make_trace`.

    `phase` is pairs, recite, read or habits; `size` traces, from number `offset` on; `pairs` the fewest and
    most pairs.
    """

    phase: Literal["pairs", "recite", "read", "habits"]
    size: AtLeastOne = 100_000
    seed: Seed = 0
    offset: Count = 0
    names: AtLeastOne | None = None
    values: AtLeastOne | None = None
    pairs: tuple[Some, Some] = (2, 6)
    recitals: AtLeastOne | None = None
    echo: Share = 0.0
    section_tokens: Some = 40
    facts_per_section: Some = 4
    two_fact_share: Share = 0.3
    recite_share: Share = 0.3
    answer_share: Share = 0.2
    habit: Share = 0.65
    surplus: Share = 0.05


@register("data", "facts_traces", config=FactsTracesConfig)
def facts_traces(
    phase: str,
    size: int = 100_000,
    seed: int = 0,
    offset: int = 0,
    names: int | None = None,
    values: int | None = None,
    pairs: tuple[int, int] = (2, 6),
    recitals: int | None = None,
    echo: float = 0.0,
    section_tokens: int = 40,
    facts_per_section: int = 4,
    two_fact_share: float = 0.3,
    recite_share: float = 0.3,
    answer_share: float = 0.2,
    habit: float = 0.65,
    surplus: float = 0.05,
    prompts: Mapping[str, str] | None = None,
) -> Sequence[Trace]:
    """Generated calls that teach a tiny policy the formats of the synthetic reading task.

    `prompts` are the recipe's; left out or empty, those of the shipped tiny policy. Raises `BadInput` for
    options that the generator refuses.
    """
    from memfactory.data.synthetic.facts_traces import PROMPTS, make_trace

    def make(index: int) -> Trace:
        row = make_trace(
            offset + index,
            seed=seed,
            phase=phase,
            names=names,
            values=values,
            pairs=(pairs[0], pairs[1]),
            recitals=recitals,
            echo=echo,
            section_tokens=section_tokens,
            facts_per_section=facts_per_section,
            two_fact_share=two_fact_share,
            recite_share=recite_share,
            answer_share=answer_share,
            habit=habit,
            surplus=surplus,
            prompts=prompts or PROMPTS,
        )
        return parse_trace(row, "facts_traces")

    return generated("facts_traces", size, make)


@dataclass(frozen=True)
class DialogueTracesConfig:
    """Fields of `dialogue_traces`, described at `memfactory.data.synthetic.dialogue_traces.make_trace`.

    `phase` is lookup, read or habits; `size` traces, from number `offset` on.
    """

    phase: Literal["lookup", "read", "habits"]
    size: AtLeastOne = 100_000
    seed: Seed = 0
    offset: Count = 0
    sessions: Some = 7
    related: AtLeastOne = 3
    top_k: AtLeastOne = 8
    extractor_share: Share = 0.25
    answerer_share: Share = 0.3
    stale: Share = 0.25
    habit: Share = 0.8
    most_facts: Some = 3
    question: Literal["any", "value", "count", "when"] = "any"


@register("data", "dialogue_traces", config=DialogueTracesConfig)
def dialogue_traces(
    phase: str,
    size: int = 100_000,
    seed: int = 0,
    offset: int = 0,
    sessions: int = 7,
    related: int = 3,
    top_k: int = 8,
    extractor_share: float = 0.25,
    answerer_share: float = 0.3,
    stale: float = 0.25,
    habit: float = 0.8,
    most_facts: int = 3,
    question: str = "any",
) -> Sequence[Trace]:
    """Generated calls that teach a tiny policy the formats of Memory-R1 on the synthetic dialogues.

    The prompts are those of the shipped tiny policy. Raises `BadInput` for options that the generator refuses.
    """
    from memfactory.data.synthetic.dialogue_traces import make_trace

    def make(index: int) -> Trace:
        row = make_trace(
            offset + index,
            seed=seed,
            phase=phase,
            sessions=sessions,
            related=related,
            top_k=top_k,
            extractor_share=extractor_share,
            answerer_share=answerer_share,
            stale=stale,
            habit=habit,
            most_facts=most_facts,
            question=question,
        )
        return parse_trace(row, "dialogue_traces")

    return generated("dialogue_traces", size, make)


def generated(name: str, size: int, make: Callable[[int], T]) -> LazySequence[T]:
    """A lazy sequence of a generator's items; its first item is made at once, so that bad options are found.

    Raises `BadInput` for what the generator refuses with `ValueError`.
    """
    if size < 1:
        raise BadInput(f"data '{name}': size must be at least 1, not {size}")
    try:
        make(0)
    except KeyError as error:
        raise BadInput(f"data '{name}': the prompts have no {error}") from None
    except (ValueError, IndexError) as error:
        raise BadInput(f"data '{name}': {error}") from None
    return LazySequence(size, make)
