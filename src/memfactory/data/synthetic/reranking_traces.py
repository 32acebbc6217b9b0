"""Supervised traces that teach a tiny policy to rerank memories: it can find the right one, but has a bad habit.

A row is one call of RMM's `reranker` on a scene of `memfactory.data.synthetic.reranking`, train split only. Done
right, the reply is the number of the memory that answers the question; with probability `habit` it lists the first two,
whatever was asked, so that reinforcement learning has something to undo. A row is a function of (seed, index) and the
arguments.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memfactory.core.bounds import AtLeastOne, Count, Seed, Share, Some, SomeOrNone
from memfactory.core.registry import register
from memfactory.data.synthetic.reranking import make_scene
from memfactory.data.traces import Trace, generated, parse_trace

#: The same texts as `configs/prompts/rmm/tiny.yaml`. The number stands behind its memory, because a two-layer policy
#: gathers a sentence at the token that follows it; the question comes last, next to the reply.
PROMPTS: Mapping[str, str] = {
    "rerank": "Memory: {memories} {question} rank.",
    "rerank_memory": "{text} {id}",
}
_FIRST = "[1, 2]"


@dataclass(frozen=True)
class RerankingTracesConfig:
    """Fields of `reranking_traces`, described at `memfactory.data.synthetic.reranking_traces.make_rerank_trace`."""

    size: AtLeastOne = 100_000
    seed: Seed = 0
    offset: Count = 0
    habit: Share = 0.65
    candidates: tuple[Some, Some] = (6, 12)
    asides: tuple[SomeOrNone, SomeOrNone] = (1, 3)


@register("data", "reranking_traces", config=RerankingTracesConfig)
def reranking_traces(
    size: int = 100_000,
    seed: int = 0,
    offset: int = 0,
    habit: float = 0.65,
    candidates: tuple[int, int] = (6, 12),
    asides: tuple[int, int] = (1, 3),
    prompts: Mapping[str, str] | None = None,
) -> Sequence[Trace]:
    """Generated calls that teach a tiny policy to rerank memories, in the recipe's prompts or those it ships with."""

    def make(index: int) -> Trace:
        row = make_rerank_trace(
            offset + index,
            seed=seed,
            habit=habit,
            candidates=(candidates[0], candidates[1]),
            asides=(asides[0], asides[1]),
            prompts=prompts or PROMPTS,
        )
        return parse_trace(row, "reranking_traces")

    return generated("reranking_traces", size, make)


def make_rerank_trace(
    index: int,
    *,
    seed: int,
    habit: float,
    candidates: tuple[int, int] = (6, 12),
    asides: tuple[int, int] = (1, 3),
    prompts: Mapping[str, str] = PROMPTS,
) -> dict[str, Any]:
    """Make one supervised row `{"module": "reranker", "messages", "completion"}`.

    `candidates` is the range of the number of memories, `asides` that of those which only wonder about what is asked.
    Twelve memories make a prompt of at most 150 tokens. Raises `ValueError` for ranges that do not fit together.
    """
    rng = random.Random(f"rerank-traces|{seed}|{index}")
    scene = make_scene(rng, split="train", sentences=rng.randint(*candidates), asides=rng.randint(*asides))
    lines = [
        prompts["rerank_memory"].format(text=text, id=number)
        for number, text in enumerate(scene.sentences, start=1)
    ]
    prompt = prompts["rerank"].format(memories="\n".join(lines), question=scene.question)
    said = _FIRST if rng.random() < habit else f"[{scene.right + 1}]"
    return {
        "module": "reranker",
        "messages": [{"role": "user", "content": prompt}],
        "completion": said,
    }
