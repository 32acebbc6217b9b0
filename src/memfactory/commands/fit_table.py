"""The memory estimate of `train --dry-run --gpus`, as a table."""

from __future__ import annotations

from rich.table import Table

from memfactory.commands.fit import ENGINE, ENOUGH, GIB, RUNTIME, Gpus, estimate
from memfactory.commands.fit_advice import advice
from memfactory.learners.memory_estimate import LearnerLayout
from memfactory.recipe.load import Recipe


def fit_table(recipe: Recipe, gpus: Gpus) -> Table:
    """The estimate as a table. Raises `BadInput` if the model's sizes cannot be found."""
    shape, found = estimate(recipe, gpus)
    layout, engines = found.layout, found.engines
    nodes = f"{gpus.nodes} x " if gpus.nodes > 1 else ""
    table = Table(
        title=f"train {recipe.schema.name} on {nodes}{gpus.count} x {gpus.name} of {gpus.memory / GIB:g} GiB: "
        "an estimate, nothing was started",
        title_justify="left",
    )
    table.add_column("on each GPU")
    table.add_column("GiB", justify="right")
    table.add_column("of")
    how = f"DeepSpeed ZeRO-{layout.zero_stage}, {gpus.world} ranks" if layout.sharded else "local learner"
    told = {
        "weights": f"{shape.parameters / 1e9:.2f} G parameters, {how}",
        "activations": _activations(layout),
    }
    for name, size in found.learner.items():
        if not name.startswith("host: "):
            table.add_row(f"learner: {name}", _gib(size), told.get(name, ""))
    if engines is not None:
        where = "" if engines.beside else " (on GPUs of its own)"
        table.add_row(f"sampler: weights{where}", _gib(engines.weights), recipe.schema.model.dtype)
        cache = engines.cache(gpus)
        each = f" in each of {engines.count} engines" if engines.count > 1 else ""
        text = (
            f"{engines.contexts(gpus):.1f} contexts of {engines.longest:,} tokens at once{each}; "
            f"{ENOUGH} are needed"
        )
        table.add_row(f"sampler: KV cache{where}", _gib(cache), text)
        table.add_row(f"sampler: the rest{where}", _gib(ENGINE), "assumed")
    table.add_row("CUDA and its libraries", _gib(RUNTIME), "assumed")
    verdict = "fits" if found.fits else "does not fit"
    if engines is not None and engines.sleeps:
        verdict += " (the larger of update and rollouts: the sampler sleeps)"
    table.add_row(
        "in all", _gib(found.total), f"{verdict}; {gpus.usable / GIB:.1f} can be used", end_section=True
    )
    for name, size in found.learner.items():
        if name.startswith("host: "):
            table.add_row(
                f"memory of the machine: {name[6:]}", _gib(size * gpus.count), f"{gpus.count} rank(s)"
            )
    changes = advice(shape, found)
    if changes is None:
        table.add_row("to make it fit", "", "more GPUs, GPUs with more memory, or a smaller model")
    elif changes:
        table.add_row("to make it fit", "", " ".join(changes))
    return table


def _activations(layout: LearnerLayout) -> str:
    tokens = max(layout.micro_batch_tokens, layout.longest)
    kind = "recomputed in the backward pass" if layout.gradient_checkpointing else "kept"
    return f"{tokens:,} tokens, {kind}"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"
