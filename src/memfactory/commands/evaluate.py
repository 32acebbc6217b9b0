"""`memfactory eval`: score the recipe's policy on its held-out sets."""

from __future__ import annotations

import hashlib

from rich.console import Console

from memfactory.commands.graph import make_collector, open_environment, open_policy, open_sampler
from memfactory.core.errors import ServiceError
from memfactory.core.versions import package_versions
from memfactory.evaluation.judged import judge_lines
from memfactory.evaluation.report import results_table, write_results
from memfactory.evaluation.runner import evaluate_sets
from memfactory.recipe.build import build_agent
from memfactory.recipe.load import Recipe
from memfactory.training.view import TrainingView


def evaluate(recipe: Recipe, console: Console) -> int:
    """Run the agent on every `data.eval` set; print a table, write `eval/<hash of the recipe>.json`.

    The file's name changes with the recipe, so results of another recipe are never overwritten.
    """
    schema = recipe.schema
    if not schema.data.eval:
        raise recipe.error("data.eval", "there is nothing to evaluate on; name at least one set")
    environment = open_environment(recipe, train=False, evaluate=True)
    policy = open_policy(recipe)
    sampler = open_sampler(recipe, policy)
    try:
        collector = make_collector(recipe, policy, sampler, build_agent(recipe), environment, training=False)
        with TrainingView(console) as view:
            results = evaluate_sets(
                collector,
                environment.eval_tasks,
                repeats=schema.evaluation.repeats,
                watch=lambda name, rollouts: view.counting(f"evaluating {name}", rollouts),
            )
    finally:
        sampler.close()
    predictions = [prediction for result in results.values() for prediction in result.predictions]
    first_error = next((prediction.error for prediction in predictions if prediction.error), None)
    if first_error and all(prediction.error for prediction in predictions):
        raise ServiceError(f"all {len(predictions)} rollouts failed; first: {first_error}")
    console.print(results_table(results, schema.model.path))
    for line in judge_lines({name: result.judges for name, result in results.items()}):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    digest = hashlib.sha256(recipe.to_yaml().encode()).hexdigest()[:8]
    path = recipe.output_dir / "eval" / f"{digest}.json"
    write_results(path, results, recipe.plain, package_versions())
    console.print(f"predictions: {path}", highlight=False, soft_wrap=True)
    if first_error:
        failed = sum(result.errors for result in results.values())
        console.print(f"warning: {failed} rollouts failed and score 0; first: {first_error}", highlight=False)
    return 0
