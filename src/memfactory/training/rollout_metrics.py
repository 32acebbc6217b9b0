"""Figures about the rollouts of a step: rewards by component, lengths by module, what failed."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from memfactory.core.texts import cut
from memfactory.core.types import Call, Rollout
from memfactory.rewards.rubric import Rubric
from memfactory.rollouts.operation_mix import operation_mix
from memfactory.training.credit import Credit


def rollout_metrics(credit: Credit, rubric: Rubric) -> dict[str, float]:
    """Means and standard deviations over rollouts without error; lengths in tokens.

    `reward` is the weighted total, of those rollouts that no judge failed on; NaN where nothing was scored.
    `trainable` counts the policy's calls, `unpaid` those of them that no reward with a weight is for.
    `truncated` is the share of calls cut at their token limit, `unanswered` of those whose reply holds no answer (a
    thought that was not finished), `groups/flat` the share of groups whose rewards do not
    differ, `operations/<kind>` the share of a kind among the operations on memory banks.
    """
    rollouts = [rollout for rollout in credit.rollouts if rollout.error is None]
    calls = [call for rollout in rollouts for call in rollout.calls]
    metrics: dict[str, float] = {
        "rollouts": len(credit.rollouts),
        "rollouts/failed": credit.failed_rollouts,
        "rollouts/unjudged": credit.unjudged_rollouts,
        "groups": len(credit.flat),
        "groups/flat": sum(credit.flat) / max(len(credit.flat), 1),
        "calls": len(calls),
        "calls/untrainable": credit.untrainable_calls,
        "calls/trainable": sum(call.trainable for call in calls),
        "calls/unpaid": sum(call.trainable and not rubric.pays(call.module) for call in calls),
        "calls/unanswered": sum(bool(call.problem) for call in calls) / max(len(calls), 1),
        "calls/truncated": sum(call.finish_reason == "length" for call in calls) / max(len(calls), 1),
        "tokens/prompt": sum(len(call.prompt_ids) for call in calls),
        "tokens/completion": sum(len(call.completion_ids) for call in calls),
    }
    judged = [rollout for rollout in rollouts if not rubric.unjudged(rollout)]
    _spread(metrics, "reward", [rubric.total(rollout.rewards) for rollout in judged])
    for name in rubric.components:
        values = [rollout.rewards[name] for rollout in rollouts if name in rollout.rewards]
        _spread(metrics, f"reward/{name}", values)
        verdicts = [rollout.verdicts[name] for rollout in rollouts if name in rollout.verdicts]
        metrics[f"reward/{name}/unjudged"] = sum(verdict.value is None for verdict in verdicts)
    for kind, share in operation_mix(rollout.outcome for rollout in rollouts).items():
        metrics[f"operations/{kind}"] = share
    lengths: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        lengths[call.module].append(len(call.completion_ids))
    for module, values in sorted(lengths.items()):
        metrics[f"length/{module}"] = statistics.fmean(values)
        metrics[f"length/{module}/max"] = max(values)
    return metrics


def rollout_record(
    rollout: Rollout,
    advantages: Mapping[str, float],
    total: float | None,
    *,
    group: int = 0,
    longest_prompt: int | None = None,
) -> dict[str, Any]:
    """One rollout as readable JSON: prompts, replies, memory after each call, rewards, advantages.

    Rollouts of one step with the same `group` answer the same task. `memory` is what the memory held before the
    first call; a call has a `memory` of its own only if the agent reported one when it was finished. Prompts
    longer than `longest_prompt` characters are cut in the middle.
    """
    outcome = rollout.outcome
    states = memory_by_calls(rollout)
    return {
        "task": rollout.task.id,
        "group": group,
        "index": rollout.index,
        "question": rollout.task.question,
        "golds": list(rollout.task.answers),
        "reply": outcome.reply if outcome else None,
        "reward": total,
        "rewards": rollout.rewards,
        "verdicts": {name: asdict(verdict) for name, verdict in rollout.verdicts.items()},
        "advantages": dict(advantages),
        "error": rollout.error,
        "info": plain(outcome.info) if outcome else {},
        "memory": states.get(0),
        "calls": [
            {
                "module": call.module,
                "role": call.role,
                "prompt": call.prompt_text
                if longest_prompt is None
                else cut(call.prompt_text, longest_prompt),
                "reply": call.whole,
                "finish_reason": call.finish_reason,
                "prompt_tokens": call.prompt_tokens,
                "completion_tokens": call.completion_tokens,
                "policy_version": call.policy_version,
                **({"advantage": advantages[call.module]} if _learns(call, advantages) else {}),
                **({"memory": states[number]} if number in states else {}),
            }
            for number, call in enumerate(rollout.calls, start=1)
        ],
    }


def memory_by_calls(rollout: Rollout) -> dict[int, str]:
    """How many calls were finished → what the memory held then (the last word, if reported more than once).

    An agent that reports nothing but returns memories is understood if one module made as many calls.
    """
    if rollout.states:
        return {state.calls: state.text for state in rollout.states}
    memories = rollout.outcome.memories if rollout.outcome else ()
    for module in dict.fromkeys(call.module for call in rollout.calls):
        made = [number for number, call in enumerate(rollout.calls, start=1) if call.module == module]
        if len(made) == len(memories):
            return dict(zip(made, memories, strict=True))
    return {}


def plain(value: Any) -> Any:
    """A value that JSON can hold: mappings and sequences of plain values; anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _learns(call: Call, advantages: Mapping[str, float]) -> bool:
    return call.trainable and call.module in advantages


def _spread(metrics: dict[str, float], name: str, values: Sequence[float]) -> None:
    metrics[name] = statistics.fmean(values) if values else math.nan
    metrics[f"{name}/std"] = statistics.pstdev(values) if values else math.nan
