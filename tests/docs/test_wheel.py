"""A wheel holds all that a recipe needs: configs, recipes and the tiny policy, found from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a wheel, installed without its dependencies into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", str(ROOT), "--no-deps", "--wheel-dir", str(folder))
    (wheel,) = folder.glob("memfactory-*.whl")
    target = folder / "site"
    _pip("install", str(wheel), "--no-deps", "--target", str(target))
    return target


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and "hatchling" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("no package index to get hatchling from")
    assert done.returncode == 0, done.stderr


def _memfactory(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-m", "memfactory", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_what_runs(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import memfactory.assets as a; print(a.__file__); print(a.root())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    module, root = done.stdout.splitlines()
    assert Path(module).is_relative_to(installed)
    assert Path(root) == installed / "memfactory" / "_assets"


def test_it_lists_every_recipe_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    listed = {line.split()[0] for line in _memfactory(installed, tmp_path, "recipes").splitlines()}
    folder = ROOT / "recipes"
    assert listed == {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}


def test_it_composes_a_recipe(installed: Path, tmp_path: Path) -> None:
    printed = _memfactory(installed, tmp_path, "train", "memagent", "--print-config")
    assert "  path: tiny  # from configs/model/tiny.yaml" in printed
    assert "  block_tokens: 40  # from configs/agent/memagent/tiny.yaml" in printed


def test_it_finds_the_tiny_policy(installed: Path, tmp_path: Path) -> None:
    printed = _memfactory(installed, tmp_path, "train", "memagent", "--dry-run")
    assert "tiny (1." in printed
    names = {path.name for path in (installed / "memfactory" / "_assets" / "data" / "tiny_policy").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
