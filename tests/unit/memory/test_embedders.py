"""Embedding: batches over coroutines, caches, and what the small encoder gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest

from memfactory.core.errors import BadInput
from memfactory.core.registry import get, names
from memfactory.memory.embedders import HashingEmbedder, SentenceTransformerEmbedder, make_embedder


class Counting(HashingEmbedder):
    """Remembers its batches; fails on demand."""

    def __init__(self, **options: object) -> None:
        super().__init__(8, **options)  # type: ignore[arg-type]
        self.batches: list[list[str]] = []

    def _encode(self, texts: Sequence[str]) -> numpy.ndarray:
        self.batches.append(list(texts))
        if "bad" in texts:
            raise ValueError("cannot encode")
        return super()._encode(texts)


async def test_concurrent_requests_become_one_batch() -> None:
    embedder = Counting()

    async def rollout(number: int) -> numpy.ndarray:
        for _ in range(number % 3):
            await asyncio.sleep(0)  # not all of them ask in the very same turn
        return await embedder.embed([f"text {number}", "shared"])

    vectors = await asyncio.gather(*(rollout(number) for number in range(30)))
    assert len(embedder.batches) == 1 and len(embedder.batches[0]) == 31
    assert embedder.batches[0] == sorted(embedder.batches[0], key=lambda text: (len(text), text))
    assert all(numpy.array_equal(each[1], vectors[0][1]) for each in vectors)
    assert numpy.array_equal(vectors[7], HashingEmbedder(8).embed_now(["text 7", "shared"]))
    assert numpy.linalg.norm(vectors[3], axis=1) == pytest.approx(1.0)


async def test_nothing_is_encoded_twice_and_duplicates_are_fine() -> None:
    embedder = Counting()
    first = await embedder.embed(["b", "a", "b"])
    again = await embedder.embed(["b", "c"])
    assert embedder.batches == [["a", "b"], ["c"]]
    assert numpy.array_equal(first[0], first[2]) and numpy.array_equal(first[0], again[0])
    assert (await embedder.embed([])).shape == (0, 8)


async def test_requests_during_a_batch_go_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Counting()
    early = asyncio.create_task(embedder.embed(["a"]))
    while not embedder.batches:
        await asyncio.sleep(0.001)
    late = await asyncio.gather(*(embedder.embed([f"late {i}"]) for i in range(5)))
    assert len(late) == 5 and len(embedder.batches) == 2 and (await early).shape == (1, 8)


async def test_an_error_reaches_those_who_asked_and_no_others() -> None:
    embedder = Counting()
    with pytest.raises(ValueError, match="cannot encode"):
        await embedder.embed(["bad"])
    assert (await embedder.embed(["good"])).shape == (1, 8)


async def test_a_cancelled_rollout_does_not_take_others_with_it() -> None:
    embedder = Counting()
    tasks = [asyncio.create_task(embedder.embed(["shared"])) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert (await tasks[1]).shape == (1, 8)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


def test_every_event_loop_and_none() -> None:
    embedder = Counting()
    results = [asyncio.run(embedder.embed(["a", str(run)])) for run in range(3)]
    assert numpy.array_equal(results[0][0], results[2][0])
    assert numpy.array_equal(embedder.embed_now(["a"])[0], results[0][0])


def test_the_memory_cache_is_bounded() -> None:
    embedder = Counting(cache_size=2)
    embedder.embed_now(["a", "b", "c"])
    embedder.embed_now(["c", "a"])
    assert embedder.batches[1] == ["a"]


def test_the_disk_cache_lasts_and_knows_its_embedder(tmp_path: Path) -> None:
    path = str(tmp_path / "sub" / "cache.sqlite")
    first = Counting(cache_path=path)
    vectors = first.embed_now(["a", "b\ud800", "c"])
    second = Counting(cache_path=path)
    assert numpy.array_equal(second.embed_now(["c", "a", "b\ud800"]), vectors[[2, 0, 1]])
    assert second.batches == []
    other = HashingEmbedder(16, cache_path=path)
    assert other.embed_now(["a"]).shape == (1, 16)
    (tmp_path / "bad").write_text("no database, by any means " * 100)
    with pytest.raises(BadInput, match="cannot be used as an embedding cache"):
        Counting(cache_path=str(tmp_path / "bad")).embed_now(["a"])


def test_prefixes_are_part_of_the_text() -> None:
    class Prefixed(Counting):
        def _prefixed(self, text: str, query: bool) -> str:
            return ("q: " if query else "m: ") + text

    embedder = Prefixed()
    embedder.embed_now(["a"], query=True)
    embedder.embed_now(["a"])
    assert embedder.batches == [["q: a"], ["m: a"]]


def test_registered() -> None:
    assert names("embedder") == ["hashing_for_tests", "sentence_transformers"]
    assert "tests only" in get("embedder", "hashing_for_tests").summary


def test_names_of_embedders(tmp_path: Path) -> None:
    assert make_embedder("all-MiniLM-L6-v2").name == make_embedder("minilm").name == "all-MiniLM-L6-v2"
    assert make_embedder("hashing_for_tests-32").dim == 32
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc" / "config.json").write_text("{}")
    one = make_embedder(str(tmp_path / "enc")).name
    (tmp_path / "enc" / "config.json").write_text("{ }")
    assert one.startswith("enc@") and one != make_embedder(str(tmp_path / "enc")).name
    with pytest.raises(BadInput, match="'nowhere' is no folder, no hub id"):
        make_embedder("nowhere").embed_now(["a"])
    with pytest.raises(BadInput, match="cannot be loaded"):
        make_embedder(str(tmp_path / "enc")).embed_now(["a"])


def test_the_small_encoder_knows_what_is_alike() -> None:
    embedder = SentenceTransformerEmbedder()
    texts = ["Ana adopted a kitten.", "Ana has a young cat now.", "The train was late."]
    vectors = embedder.embed_now(texts)
    assert vectors.shape == (3, embedder.dim) == (3, 384)
    assert vectors[0] @ vectors[1] > 0.6 > 0.3 > vectors[0] @ vectors[2]
    alone = numpy.stack([SentenceTransformerEmbedder().embed_now([texts[0]])[0]])
    numpy.testing.assert_allclose(alone[0], vectors[0], atol=2e-6)  # whatever the batch
    tokens = embedder._model.tokenizer
    assert tokens("a [SEP] b")["input_ids"].count(tokens.sep_token_id) == 1  # the one at the end
