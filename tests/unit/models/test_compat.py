"""Broken companions of torch are hidden, working ones are left alone. Each case is its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')"
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from memfactory.core.compat import prepare_imports
hidden = prepare_imports()
assert prepare_imports() == hidden
print(",".join(hidden))
import importlib.util
print(importlib.util.find_spec("torchvision") is not None)
if "--transformers" in sys.argv:
    import transformers.utils.import_utils as utils
    print(utils.is_torchvision_available())
    from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
    print("ok")
"""


def run(folder: Path, *options: str) -> list[str]:
    source = Path(__file__).parents[3] / "src"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def fake(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    (folder / f"{name}-0.1.dist-info").mkdir()
    (folder / f"{name}-0.1.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
    )


def test_a_broken_package_is_hidden(tmp_path: Path) -> None:
    fake(tmp_path, "torchvision", f"import torchvision.ops\n{BROKEN}")
    (tmp_path / "torchvision" / "ops.py").write_text("")
    fake(tmp_path, "torchaudio", "raise OSError('libcudart.so.13: cannot open shared object file')")
    fake(tmp_path, "torchcodec", "raise RuntimeError('Could not load this library: libtorchcodec_image.so')")
    assert run(tmp_path) == ["torchvision,torchaudio,torchcodec", "False"]


def test_a_working_package_is_left_alone(tmp_path: Path) -> None:
    fake(tmp_path, "torchvision", "")
    fake(tmp_path, "torchaudio", "")
    assert run(tmp_path) == ["", "True"]


@pytest.mark.parametrize("code", [BROKEN])
def test_transformers_imports_beside_a_broken_package(tmp_path: Path, code: str) -> None:
    fake(tmp_path, "torchvision", code)
    assert run(tmp_path, "--transformers") == ["torchvision", "False", "False", "ok"]
