"""`memfactory export`: what it writes loads in transformers and peft and is the policy that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from memfactory.algorithms.objective import Objective
from memfactory.cli.main import run
from memfactory.core.types import Row
from memfactory.learners.local import LocalLearner
from memfactory.recipe.load import load_recipe
from memfactory.training.run_folder import RunFolder
from tests.tiny_models import random_policy

IDS = torch.tensor([[5, 17, 40, 8, 99, 3]])


def trained(folder: Path, base: Path, *, rank: int) -> tuple[Path, LocalLearner]:
    """A run folder as training leaves it after two steps, with a checkpoint of each."""
    path = folder / "run"
    overrides = [f"model.path={base}", f"learner.lora_rank={rank}", "learner.lora_alpha=8"]
    path.mkdir(parents=True)
    run_folder = RunFolder(path)
    (path / "recipe.yaml").write_text(load_recipe("memagent", overrides, output_dir=path).to_yaml())
    learner = LocalLearner(model=base, device="cpu", lr=0.05, lora_rank=rank, lora_alpha=8)
    rows = [Row((5, 6, 7), (8, 9), (-3.0, -3.0), 1.0, 0), Row((5, 6), (11,), (-3.0,), -1.0, 1)]
    for step in (1, 2):
        learner.update(rows, Objective())
        with run_folder.new_checkpoint(step) as checkpoint:
            learner.save_state(checkpoint / "learner")
            learner.save_policy(checkpoint / "policy")
    with run_folder.new_final() as final:
        learner.save_policy(final)
    return path, learner


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.eval()(IDS).logits
    return result


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_policy(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Path, LocalLearner]:
    return trained(tmp_path_factory.mktemp("lora"), base, rank=4)


def test_adapter_and_merged_model_are_both_the_policy(
    lora: tuple[Path, LocalLearner], base: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoTokenizer

    path, learner = lora
    wanted = logits(learner._model)
    assert (wanted - logits(load(base))).abs().max() > 0.01
    assert run(["export", str(path)]) == 0
    adapted = PeftModel.from_pretrained(load(base), path / "export")
    torch.testing.assert_close(logits(adapted), wanted)
    assert AutoTokenizer.from_pretrained(path / "export").eos_token_id is not None
    assert adapted.peft_config["default"].base_model_name_or_path == str(base)

    merged = tmp_path / "merged"
    assert run(["export", str(path), "--merge", "-o", str(merged)]) == 0
    torch.testing.assert_close(logits(load(merged)), wanted, atol=1e-5, rtol=1e-5)


def test_a_step_of_a_full_run_is_exported_as_a_model(base: Path, tmp_path: Path) -> None:
    path, learner = trained(tmp_path, base, rank=0)
    assert run(["export", str(path), "--step", "1"]) == 0
    earlier = logits(load(path / "export"))
    assert run(["export", str(path)]) == 0  # an earlier export may be replaced
    torch.testing.assert_close(logits(load(path / "export")), logits(learner._model))
    assert (logits(learner._model) - earlier).abs().max() > 1e-3


class Hub:
    """Stands in for the hub: notes what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, repository: str, **options: Any) -> str:
        self.calls.append((repository, options))
        return f"https://hub/{repository}"

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload", options))


def use(hub: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("huggingface_hub.create_repo", hub.create_repo)
    patch.setattr("huggingface_hub.upload_folder", hub.upload_folder)


def test_only_the_flag_uploads(
    lora: tuple[Path, LocalLearner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    use(hub, monkeypatch)
    command = ["export", str(lora[0]), "--merge", "-o", str(tmp_path / "model")]
    assert run(command) == 0
    assert hub.calls == []
    assert run([*command, "--push-to-hub", "me/mine"]) == 0
    assert hub.calls[0] == ("me/mine", {"private": True, "exist_ok": True})
    assert hub.calls[1][1]["folder_path"] == tmp_path / "model"
    assert run([*command, "--push-to-hub", "me/mine", "--public"]) == 0
    assert hub.calls[2][1]["private"] is False


def test_a_failed_upload_keeps_the_folder(
    lora: tuple[Path, LocalLearner],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub = Hub()

    def refuse(**options: Any) -> None:
        raise OSError("401 not logged in")

    monkeypatch.setattr(hub, "upload_folder", refuse)
    use(hub, monkeypatch)
    assert run(["export", str(lora[0]), "-o", str(tmp_path / "a"), "--push-to-hub", "me/mine"]) == 1
    error = capsys.readouterr().err
    assert "401 not logged in" in error
    assert error.count("\n") == 1
    assert (tmp_path / "a" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "7"], "no checkpoint of step 7; there are: 1, 2"),
        (["--push-to-hub", "mine"], "is not like owner/name"),
        (["--output", "{run}"], "not written by memfactory, or changed since: checkpoints/"),
        (["--output", "{run}/checkpoints/step-2"], "is a checkpoint, no export; nothing was deleted"),
    ],
)
def test_mistakes_are_one_line(
    lora: tuple[Path, LocalLearner], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(run=lora[0]) for argument in arguments]
    assert run(["export", str(lora[0]), *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (lora[0] / "recipe.yaml").is_file()


def test_a_folder_that_an_export_did_not_write_stays(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of the user's, an export with a file more or with one that was changed, and a link to a folder."""
    path, _ = trained(tmp_path / "run", base, rank=0)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    for name in ("more", "changed"):
        assert run(["export", str(path), "-o", str(tmp_path / name)]) == 0
    (tmp_path / "more" / "notes.txt").write_text("mine")
    (tmp_path / "changed" / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "more")
    for target, said in (
        ("mine", "config.json"),
        ("more", "notes.txt"),
        ("changed", "config.json"),
        ("link", "is there already"),
    ):
        capsys.readouterr()
        assert run(["export", str(path), "-o", str(tmp_path / target)]) != 0
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert (mine / "config.json").read_text() == (tmp_path / "changed" / "config.json").read_text() == "{}"
    assert (tmp_path / "more" / "notes.txt").read_text() == "mine"


def test_damaged_weights_are_not_exported(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained(tmp_path, base, rank=0)
    weights = path / "final" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert run(["export", str(path)]) == 2
    error = capsys.readouterr().err
    assert "model.safetensors is not what was written" in error and error.count("\n") == 1
    assert not (path / "export").exists()


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(tmp_path)]) == 2
    assert "no recipe.yaml" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").write_text(load_recipe("memagent").to_yaml())
    assert run(["export", str(tmp_path)]) == 2
    assert "no trained weights yet" in capsys.readouterr().err
