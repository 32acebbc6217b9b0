"""From a recipe's name and the command line to a checked `Recipe`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from memfactory.core.errors import BadInput
from memfactory.recipe.components import find_plugin, load_components
from memfactory.recipe.cross_checks import check_together
from memfactory.recipe.files import display, find_recipe
from memfactory.recipe.layers import Layers, compose
from memfactory.recipe.learnable import check_learnable
from memfactory.recipe.origins import DEFAULT, nearest_origin, origin_of
from memfactory.recipe.render import to_yaml
from memfactory.recipe.roles import check_roles
from memfactory.recipe.schema import RecipeSchema
from memfactory.recipe.secrets import Environment, plain_secrets
from memfactory.recipe.validate import Validator
from memfactory.recipe.values import MISSING, Invalid, plain

Command = Literal["train", "eval", "infer"]

#: Keys that may be left `???` because the command never reads what is below them.
_UNREAD: Mapping[Command | None, tuple[str, ...]] = {
    "train": (),
    "eval": ("data.train",),
    "infer": ("data",),
    None: ("",),
}


@dataclass(frozen=True)
class Recipe:
    """A composed and checked recipe.

    `schema` holds its typed values with all defaults filled in, `plain` the same as mappings and lists,
    `origins` the file (or `command line`) of each leaf that was given, `path` the recipe file.
    """

    schema: RecipeSchema
    plain: Mapping[str, Any]
    origins: Mapping[str, str] = field(repr=False)
    path: Path
    environment: Environment = field(default_factory=Environment, repr=False)

    @property
    def shown(self) -> Mapping[str, Any]:
        """`plain` as it may be printed, kept and sent: without secrets and passwords (`recipe.secrets`)."""
        shown: Mapping[str, Any] = self.environment.shown(self.plain)
        return shown

    @property
    def output_dir(self) -> Path:
        """The run folder; `~` in it is a home folder."""
        return Path(self.schema.output_dir).expanduser()

    def origin(self, key: str) -> str:
        """Where the value of a dotted key came from: a file, `command line` or `default`."""
        return origin_of(self.origins, key)

    def error(self, key: str, problem: str) -> BadInput:
        """The error to raise for a value found wrong later; it names the key and the file it came from."""
        return _bad_input(self.origins, self.path, key, self.environment.hidden(problem, key))

    def to_yaml(self) -> str:
        """The resolved recipe, for the run folder; it composes to the same recipe again."""
        return to_yaml(self.shown)

    def annotated_yaml(self) -> str:
        """The resolved recipe with where each value came from as a comment."""
        return to_yaml(self.shown, self.origin)


def load_recipe(
    name: str,
    overrides: Iterable[str] = (),
    *,
    command: Command | None = None,
    output_dir: str | Path | None = None,
    benchmark: Path | None = None,
    only_options: Iterable[str] = (),
) -> Recipe:
    """Compose and check a recipe without importing anything heavy.

    `name` is a path or the name of a recipe that ships, `overrides` are `key=value` or `group=option`.
    `benchmark` is the file of a benchmark that takes the place of the recipe's held-out sets; of the groups
    `only_options` the chosen option counts alone, without what the recipe changes in it.
    Values that `command` never reads may be missing (all of them when it is None). Raises `BadInput`,
    in one line that names key and file, for whatever is wrong.
    """
    path = find_recipe(name)
    forced = {} if output_dir is None else {"output_dir": str(output_dir)}
    layers = compose(path, overrides, forced, benchmark, only_options)
    layers.values["plugins"] = _load_plugins(layers, path)
    unread = _UNREAD[command]
    try:
        schema: RecipeSchema = Validator(_below(unread)).dataclass(layers.values, RecipeSchema, "")
    except Invalid as error:
        problem = layers.environment.hidden(error.problem, error.key)
        raise _bad_input(layers.origins, path, error.key, problem) from None
    if not isinstance(schema, RecipeSchema):  # one of its own keys is ???, which no other rule can do without
        missing = next((key for key, value in layers.values.items() if value == MISSING), "model")
        raise _bad_input(layers.origins, path, missing, "a value is needed; set it in the recipe")
    recipe = Recipe(schema, plain(schema), layers.origins, path, layers.environment)
    for key in plain_secrets(recipe.shown):
        raise recipe.error(
            key, "a secret would be kept with every run; write '${oc.env:NAME}' and set that variable"
        )
    _check_complete(recipe, command)
    check_together(recipe, command)
    check_roles(recipe, command)
    if command == "train":
        check_learnable(recipe)
    return recipe


def _check_complete(recipe: Recipe, command: Command | None) -> None:
    """Refuse a recipe that has every key right but nothing to train on, to score or to score with."""
    schema = recipe.schema
    if command == "train" and schema.data.train is None:
        raise recipe.error("data.train", "nothing to train on; choose a data group (data=...)")
    if command == "eval" and not schema.data.eval:
        raise recipe.error("data.eval", "no held-out tasks to score; choose a data group (data=...)")
    if command in ("train", "eval") and schema.stage == "rl" and not schema.reward:
        raise recipe.error("reward", "no reward to score with; choose a reward group (reward=...)")
    if command == "train" and schema.stage == "rl" and schema.sampler.get("adapter_sync"):
        if not schema.learner.get("lora_rank"):
            raise recipe.error(
                "sampler.adapter_sync",
                "there are no adapters to send; set learner.lora_rank, or leave it out",
            )
        if schema.learner.get("quantization"):
            raise recipe.error(
                "sampler.adapter_sync",
                "the sampler's weights are not those that learner.quantization rounds; leave one of the two out",
            )
    if command == "train" and schema.trainer.max_staleness and schema.sampler.get("sleep"):
        raise recipe.error(
            "sampler.sleep", "with trainer.max_staleness the sampler works during the update; leave one out"
        )
    if command == "train" and schema.trainer.max_staleness:
        if schema.stage != "rl":
            raise recipe.error(
                "trainer.max_staleness", "stage 'sft' has no rollouts that could be stale; set 0"
            )
        if schema.algorithm.tis_cap is None:
            raise recipe.error(
                "trainer.max_staleness",
                "rollouts of older weights must be weighed; set algorithm.tis_cap (2 is usual)",
            )


def _below(prefixes: tuple[str, ...]) -> Callable[[str], bool]:
    def unread(key: str) -> bool:
        return any(not prefix or key == prefix or key.startswith(prefix + ".") for prefix in prefixes)

    return unread


def _load_plugins(layers: Layers, path: Path) -> list[str]:
    """Load the recipe's plugins and return their absolute paths, so that a copy of the recipe finds them."""
    try:
        names = Validator().value(layers.values.get("plugins") or [], tuple[str, ...], "plugins")
        files = [find_plugin(name, path.parent) for name in names]
        load_components(files)
    except Invalid as error:
        raise _bad_input(layers.origins, path, error.key, error.problem) from None
    except BadInput as error:
        raise _bad_input(layers.origins, path, "plugins", str(error)) from error
    return [str(file) for file in files]


def _bad_input(origins: Mapping[str, str], path: Path, key: str, problem: str) -> BadInput:
    origin = nearest_origin(origins, key)
    where = display(path) if origin == DEFAULT else origin
    return BadInput(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")
