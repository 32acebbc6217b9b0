"""What `memfactory eval` was asked for, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass

#: The recipe that `eval` runs when none is named.
DEFAULT_RECIPE = "memagent"
#: Where results go when several recipes are evaluated at once and no folder is named.
SHARED_OUTPUT = "runs/eval"


@dataclass(frozen=True)
class EvalOptions:
    """Recipes, and what to run each of them with; an empty list leaves the recipe's own."""

    recipes: tuple[str, ...] = (DEFAULT_RECIPE,)
    models: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    output_dir: str | None = None

    @property
    def folder(self) -> str | None:
        """The output folder that was named, or the shared one of several recipes; None: the recipe's own."""
        return self.output_dir or (SHARED_OUTPUT if len(self.recipes) > 1 else None)
