"""Engines and models that tests share: a vLLM engine takes about 10 s to start."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from memfactory.models.text import TextCodec
from memfactory.samplers.hf import HfSampler
from memfactory.samplers.vllm import VllmSampler
from tests.integration.chats import write_chat
from tests.tiny_models import random_policy

MAX_MODEL_LEN = 256


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy with tied embeddings."""
    return random_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def chat_recipe(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    """The recipe of chats, `talk.yaml`; one for all tests, as a process can load its plugin from one place only."""
    return write_chat(tmp_path_factory.mktemp("chat"), policy_folder)


@pytest.fixture(scope="session")
def codec(policy_folder: Path) -> TextCodec:
    return TextCodec.from_folder(policy_folder)


@pytest.fixture(scope="session")
def prompts(codec: TextCodec) -> list[tuple[int, ...]]:
    """64 prompts of 3 to 90 tokens, some with a common prefix."""
    draw = random.Random(1)
    size = len(codec.tokenizer)
    prefix = [draw.randrange(10, size) for _ in range(40)]
    return [
        tuple(
            prefix[: draw.randrange(0, 40)] + [draw.randrange(10, size) for _ in range(draw.randrange(3, 50))]
        )
        for _ in range(64)
    ]


@pytest.fixture(scope="session")
def vllm_sampler(policy_folder: Path, codec: TextCodec) -> Iterator[VllmSampler]:
    """One real engine for the session, at version 0 with the weights of `policy_folder`.

    A test that loads other weights puts these back.
    """
    pytest.importorskip("vllm")
    sampler = VllmSampler(
        kv_cache_gb=0.25, model_folder=policy_folder, codec=codec, max_model_len=MAX_MODEL_LEN
    )
    yield sampler
    sampler.close()


@pytest.fixture(scope="session")
def hf_sampler(policy_folder: Path, codec: TextCodec) -> HfSampler:
    return HfSampler(
        max_num_seqs=48, device="cpu", model_folder=policy_folder, codec=codec, max_model_len=MAX_MODEL_LEN
    )
