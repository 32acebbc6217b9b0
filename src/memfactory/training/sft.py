"""Rows from traces: the supervised warm start (`stage: sft`) on the same loop as RL.

A trace is one call done right. Cross-entropy on its completion is REINFORCE with advantage 1, so the
learner needs no second loss: rows with advantage 1 under `kind="reinforce"` and the token mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.types import Row
from memfactory.data.sampling import TaskOrder
from memfactory.data.traces import Trace
from memfactory.learners.base import Learner
from memfactory.models.text import Codec
from memfactory.training.trainer import Batch

SFT_OBJECTIVE = Objective(kind="reinforce", denominator="token")


class TraceSource:
    """Makes the rows of each step from the next traces, in a seeded order."""

    def __init__(
        self,
        traces: Sequence[Trace],
        held_out: Mapping[str, Sequence[Trace]],
        order: TaskOrder,
        codec: Codec,
        eos_id: int,
        rows_per_step: int,
        max_model_len: int,
        template: Mapping[str, Any],
        ranks: Ranks = ALONE,
    ) -> None:
        self.traces = traces
        self.held_out = held_out
        self.order = order
        self.codec = codec
        self.eos_id = eos_id
        self.rows_per_step = rows_per_step
        self.max_model_len = max_model_len
        self.template = template
        self.ranks = ranks

    def rows(self, step: int, position: int) -> Batch:
        """Rows of the `rows_per_step` traces at `position`."""
        numbers = [self.order.at(position + offset) for offset in range(self.rows_per_step)]
        rows = [self._row(self.traces[number], number) for number in numbers]
        metrics = {
            "tokens/prompt": float(sum(len(row.prompt_ids) for row in rows)),
            "tokens/completion": float(sum(len(row.completion_ids) for row in rows)),
        }
        return Batch(rows=rows, position=position + len(rows), metrics=metrics)

    def sync(self, learner: Learner, version: int) -> Mapping[str, float]:
        """Nobody samples while learning from traces."""
        return {}

    def rest(self) -> None:
        """Nobody samples while learning from traces."""

    def evaluate(self, label: str, learner: Learner) -> dict[str, Any]:
        """Mean negative log-likelihood per completion token (nats) and its share below ln 2, by set."""
        sets = {}
        for name, traces in self.held_out.items():
            rows = [self._row(trace, number) for number, trace in enumerate(traces)]
            scored = self.ranks.join_shares(learner.logprobs(self.ranks.share(rows)))
            values = [value for row in scored for value in row]
            sets[name] = {
                "traces": len(rows),
                "scores": {
                    "nll": -sum(values) / max(len(values), 1),
                    "likely": sum(value > -0.6931 for value in values) / max(len(values), 1),
                },
            }
        return {"sets": sets}

    def close(self) -> None:
        """Nothing to free."""

    def _row(self, trace: Trace, number: int) -> Row:
        prompt = self.codec.render(trace.messages, **self.template)
        completion = (*self.codec.encode_reply(trace.completion), self.eos_id)
        if len(prompt) + len(completion) > self.max_model_len:
            raise BadInput(
                f"data.train: trace {number} has {len(prompt) + len(completion)} tokens, more than "
                f"model.max_model_len={self.max_model_len}; shorten it or raise the limit"
            )
        return Row(
            prompt_ids=prompt,
            completion_ids=completion,
            behaviour_logprobs=(),
            advantage=1.0,
            rollout_id=number,
            module=trace.module,
        )
