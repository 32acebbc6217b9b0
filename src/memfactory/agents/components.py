"""Parts of an agent that learn by themselves, beside the policy: how a training run and a server keep them.

Such a part has a small learner of its own: it takes finished rollouts, never rows. Trainer and inference know it by
this protocol only, and save what it learned beside the policy or beside the bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from memfactory.core.types import Rollout


class ComponentLearner(Protocol):
    """A part of an agent with weights of its own."""

    online: bool
    """Whether it also learns while it serves."""

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Learn from the scored rollouts of one step; returns figures. Rollouts with an error are passed over."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write everything `load_state` needs to go on bit for bit into a folder, which may exist."""
        ...

    def load_state(self, folder: Path) -> None:
        """Go on from what `save_state` wrote. Raises `BadInput` if it does not fit."""
        ...


def component_learners(agent: object) -> dict[str, ComponentLearner]:
    """The parts of an agent that learn by themselves, by name; most agents have none."""
    return dict(getattr(agent, "component_learners", {}))


def save_components(components: Mapping[str, ComponentLearner], folder: Path) -> None:
    """Save each part into a folder of its name; without parts nothing is written."""
    for name, component in components.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        component.save_state(folder / name)


def load_components(components: Mapping[str, ComponentLearner], folder: Path) -> dict[str, Path]:
    """Load each part that was saved there; returns which, and from where. Raises `BadInput` as `load_state` does.

    An empty folder is one that a kill left before anything was saved.
    """
    places = {name: folder / name for name in components}
    saved = {name: place for name, place in places.items() if place.is_dir() and any(place.iterdir())}
    for name, place in saved.items():
        components[name].load_state(place)
    return saved
