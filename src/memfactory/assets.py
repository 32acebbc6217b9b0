"""Where the configs, recipes and data that ship with MemFactory are.

In a checkout they are its `configs/`, `recipes/` and `data/` folders; an installed wheel carries copies
of them in `memfactory/_assets/`.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]


def root() -> Path:
    """The folder that holds `configs/`, `recipes/` and `data/`."""
    if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "configs").is_dir():
        return _CHECKOUT
    return _PACKAGE / "_assets"


def configs() -> Path:
    """The folder of config groups."""
    return root() / "configs"


def recipes() -> Path:
    """The folder of shipped recipes."""
    return root() / "recipes"


def data(name: str) -> Path:
    """The shipped data folder or file `name`; it may not exist."""
    return root() / "data" / name


def recipe_names() -> list[str]:
    """Names of the shipped recipes (`memagent`, `gpu/...`), sorted, those in sub-folders last."""
    names = [path.relative_to(recipes()).with_suffix("").as_posix() for path in recipes().rglob("*.yaml")]
    return sorted(names, key=lambda name: (name.count("/"), name))
