"""Every combination of recipe, model, agent and benchmark that one `memfactory eval` scores, composed and checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from memfactory.core import registry
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.evaluation.options import EvalOptions
from memfactory.recipe.files import config_file, config_folders, config_groups, find_recipe
from memfactory.recipe.load import Recipe, load_recipe
from memfactory.recipe.roles import other_roles


@dataclass(frozen=True)
class Cell:
    """One recipe to run, and the names of its row: model, agent and benchmark as they were asked for."""

    recipe: Recipe
    model: str
    agent: str
    benchmark: str | None

    @property
    def engine(self) -> str:
        """Cells with the same one can share a running sampler."""
        plain = self.recipe.plain
        roles = sorted(other_roles(self.recipe.schema))  # those that the agent's modules and judges ask for
        parts = [plain["model"], plain["sampler"], plain["seed"], plain["roles"], roles]
        return json.dumps(parts, sort_keys=True)


def make_cells(options: EvalOptions, *, complete: bool = True) -> list[Cell]:
    """Compose all combinations; those that can share a sampler follow each other.

    With `complete` false a recipe may lack values that `eval` needs: it can be looked at, not run.

    A name in `models` is an option of the group `model`, or else a folder or hub id for `model.path`. A name in
    `agents` is the recipe's own agent as it has it, or an option of the group `agent`, and of `prompts` where there is
    one of that name; rewards of the recipe's modules are not for it. A name in `benchmarks` is an option of the group
    `benchmark`, or a YAML file. Raises `BadInput` for an unknown one, and for whatever is wrong with a combination.
    """
    cells = []
    for name in options.recipes:
        groups = config_groups(config_folders(find_recipe(name)))
        for model in options.models or (None,):
            chosen_model = _model(model, groups.get("model", set()))
            own = _own_agent(name, chosen_model) if options.agents else ""
            for agent in options.agents or (None,):
                chosen_agent = _agent(agent, own, groups)
                for benchmark in options.benchmarks or (None,):
                    chosen, file = _benchmark(benchmark, groups.get("benchmark", set()))
                    changes = [*chosen_model, *chosen_agent, *chosen, *options.overrides]
                    compose = partial(
                        load_recipe,
                        name,
                        command="eval" if complete else None,
                        output_dir=options.folder,
                        benchmark=file,
                        only_options=[choice.partition("=")[0] for choice in chosen_agent],
                    )
                    recipe = compose(changes)
                    foreign = _module_rewards(recipe) if chosen_agent else []
                    if foreign:
                        recipe = compose([*changes, *(f"~reward.{part}" for part in foreign)])
                    cells.append(
                        Cell(
                            recipe=recipe,
                            model=model or recipe.schema.model.path,
                            agent=agent or str(recipe.schema.agent["type"]),
                            benchmark=recipe.schema.benchmark,
                        )
                    )
    _require_distinct(cells)
    order = list(dict.fromkeys(cell.engine for cell in cells))
    return sorted(cells, key=lambda cell: order.index(cell.engine))


def _module_rewards(recipe: Recipe) -> list[str]:
    """Rewards that pay single modules or judge what these did: an agent of another recipe does not report that."""
    return [
        name
        for name, part in recipe.schema.reward.items()
        if part.modules
        or getattr(registry.get("reward", part.component["type"]).build, "about_modules", False)
    ]


def _model(name: str | None, known: set[str]) -> list[str]:
    if name is None:
        return []
    return [f"model={name}"] if name in known else [f"model.path={_quoted(name)}"]


def _own_agent(recipe: str, model: Sequence[str]) -> str:
    """The type of the agent that a recipe has itself."""
    return str(load_recipe(recipe, model).schema.agent["type"])


def _agent(name: str | None, own: str, groups: dict[str, set[str]]) -> list[str]:
    """The groups to choose for an agent; none for the recipe's own, which runs as the recipe has it."""
    if name is None:
        return []
    known = groups.get("agent", set())
    if name not in known:
        hint = did_you_mean(name, known) or f"; options: {', '.join(sorted(known))}"
        raise BadInput(f"--agents: group 'agent' has no option '{name}'{hint}")
    if name == own:
        return []
    prompts = [f"prompts={name}"] if name in groups.get("prompts", set()) else []
    return [f"agent={name}", *prompts]


def _benchmark(name: str | None, known: set[str]) -> tuple[list[str], Path | None]:
    """The override that chooses a benchmark, or the file that is one."""
    if name is None:
        return [], None
    if name in known:
        return [f"benchmark={name}"], None
    path = Path(name).expanduser()
    found = config_file(path)
    if found is not None:
        return [], found
    hint = did_you_mean(name, known) or f"; options: {', '.join(sorted(known))}, or a YAML file"
    raise BadInput(f"--benchmarks: there is no benchmark '{name}'{hint}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _require_distinct(cells: Sequence[Cell]) -> None:
    """Two rows of one name could not be told apart, neither in the table nor in the file."""
    seen = set()
    for cell in cells:
        row = (cell.recipe.schema.name, cell.model, cell.agent, cell.benchmark)
        if row in seen:
            what = ", ".join(str(part) for part in row if part)
            raise BadInput(f"command line: the same evaluation is asked for twice: {what}")
        seen.add(row)
