"""The real small model from its package: converted once, then an ordinary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfactory.core.types import Message
from memfactory.models.load import load_policy
from memfactory.models.source import context_length, resolve_model
from memfactory.models.text import TextCodec


@pytest.mark.slow
def test_smollm2_answers_a_question() -> None:
    import torch

    folder: Path = resolve_model("smollm2")
    codec = TextCodec.from_folder(folder)
    model = load_policy(folder, device="cpu")
    assert context_length(folder) == 8192
    assert codec.tokenizer.convert_ids_to_tokens(sorted(codec.eos_ids)) == ["<|im_end|>"]
    ids = list(
        codec.render([Message("user", "What is the capital of France? Answer in one short sentence.")])
    )
    prompt = len(ids)
    with torch.inference_mode():
        while len(ids) < prompt + 24 and ids[-1] not in codec.eos_ids:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert "Paris" in codec.decode(ids[prompt:])
