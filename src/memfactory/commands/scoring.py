"""How a recipe wants its held-out sets scored."""

from __future__ import annotations

from functools import partial

from memfactory.evaluation.metrics import DEFAULT_METRICS, METRICS, BatchMetric
from memfactory.evaluation.runner import Settings
from memfactory.metrics.bertscore import bert_score, open_scorer
from memfactory.recipe.load import Recipe


def evaluation_settings(recipe: Recipe) -> Settings:
    """How the recipe wants its held-out sets scored."""
    wanted = recipe.schema.evaluation
    chosen = wanted.bertscore
    batched: dict[str, BatchMetric] = {
        "bertscore": partial(bert_score, model=chosen.model, layers=chosen.layers, device=chosen.device)
    }
    return Settings(
        repeats=wanted.repeats, metrics=wanted.metrics, log_rollouts=wanted.log_rollouts, batched=batched
    )


def prepare_metrics(recipe: Recipe) -> None:
    """Load the models that the chosen metrics need, before an engine starts and rollouts are made.

    Raises `BadInput` when the package or the model of one is missing.
    """
    wanted = recipe.schema.evaluation
    if "bertscore" in (wanted.metrics or ()):
        chosen = wanted.bertscore
        open_scorer(chosen.model, chosen.layers, chosen.device)


def first_metric(recipe: Recipe) -> str:
    """The metric that stands for all of them where there is room for one: one that is known while rollouts are made."""
    metrics = recipe.schema.evaluation.metrics or DEFAULT_METRICS
    return next((name for name in metrics if METRICS[name].score is not None), metrics[0])
