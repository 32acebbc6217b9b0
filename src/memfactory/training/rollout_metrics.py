"""Figures about the rollouts of a step: rewards by component, lengths by module, what failed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from memfactory.core.types import Rollout
from memfactory.rewards.rubric import Rubric
from memfactory.rollouts.operation_mix import operation_mix
from memfactory.training.credit import Credit


def rollout_metrics(credit: Credit, rubric: Rubric) -> dict[str, float]:
    """Means and standard deviations over rollouts without error; lengths in tokens.

    `reward` is the weighted total. `truncated` is the share of calls cut at their token limit,
    `groups/flat` the share of groups whose rewards do not differ.
    """
    rollouts = [rollout for rollout in credit.rollouts if rollout.error is None]
    calls = [call for rollout in rollouts for call in rollout.calls]
    metrics: dict[str, float] = {
        "rollouts": len(credit.rollouts),
        "rollouts/failed": credit.failed_rollouts,
        "groups": len(credit.flat),
        "groups/flat": sum(credit.flat) / max(len(credit.flat), 1),
        "calls": len(calls),
        "calls/untrainable": credit.untrainable_calls,
        "calls/truncated": sum(call.finish_reason == "length" for call in calls) / max(len(calls), 1),
        "tokens/prompt": sum(len(call.prompt_ids) for call in calls),
        "tokens/completion": sum(len(call.completion_ids) for call in calls),
    }
    _spread(metrics, "reward", [rubric.total(rollout.rewards) for rollout in rollouts])
    for name in rubric.components:
        judged = [rollout.rewards[name] for rollout in rollouts if name in rollout.rewards]
        _spread(metrics, f"reward/{name}", judged)
        metrics[f"reward/{name}/unjudged"] = len(rollouts) - len(judged)
    for kind, share in operation_mix(rollout.outcome for rollout in rollouts).items():
        metrics[f"operations/{kind}"] = share
    lengths: dict[str, list[int]] = defaultdict(list)
    for call in calls:
        lengths[call.module].append(len(call.completion_ids))
    for module, values in sorted(lengths.items()):
        metrics[f"length/{module}"] = statistics.fmean(values)
        metrics[f"length/{module}/max"] = max(values)
    return metrics


def rollout_record(rollout: Rollout, advantages: dict[str, float], total: float) -> dict[str, Any]:
    """One rollout as readable JSON: prompts, replies, memory after each step, rewards, advantages."""
    outcome = rollout.outcome
    return {
        "task": rollout.task.id,
        "question": rollout.task.question,
        "golds": list(rollout.task.answers),
        "index": rollout.index,
        "reply": outcome.reply if outcome else None,
        "memories": list(outcome.memories) if outcome else [],
        "reward": total,
        "rewards": rollout.rewards,
        "advantages": advantages,
        "error": rollout.error,
        "calls": [
            {
                "module": call.module,
                "role": call.role,
                "prompt": call.prompt_text,
                "reply": call.text,
                "finish_reason": call.finish_reason,
                "prompt_tokens": len(call.prompt_ids),
                "completion_tokens": len(call.completion_ids),
                "policy_version": call.policy_version,
            }
            for call in rollout.calls
        ],
    }


def _spread(metrics: dict[str, float], name: str, values: Sequence[float]) -> None:
    metrics[name] = statistics.fmean(values) if values else 0.0
    metrics[f"{name}/std"] = statistics.pstdev(values) if values else 0.0
