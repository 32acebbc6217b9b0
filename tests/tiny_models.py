"""Random models small enough for tests, with the shipped tokenizer, and a learner that only scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memfactory.core.types import Row


def random_policy(folder: Path, *, seed: int = 0, tie: bool = True) -> Path:
    """Write a random two-layer Qwen3 with the shipped tokenizer to `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    from memfactory.models.load import load_tokenizer
    from memfactory.models.source import resolve_model

    tokenizer = load_tokenizer(resolve_model("tiny"))
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=tie,
        max_position_embeddings=1024,
        initializer_range=0.15,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class ScoringLearner:
    """Holds a transformers model, scores rows one by one, hands out its weights; cannot learn."""

    def __init__(self, folder: Path) -> None:
        from memfactory.models.load import load_policy

        self.model = load_policy(folder, device="cpu")

    def perturb(self, seed: int, scale: float = 0.05) -> None:
        """Move every weight at random, so that all of them must be synced."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))

    def named_weights(self) -> Iterator[tuple[str, Any]]:
        """The model's weights; a tied output layer is not listed, as in a saved model."""
        yield from self.model.named_parameters()

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[list[float]]:
        """Log-probabilities of completion tokens, by a full forward pass without a cache."""
        import torch

        result = []
        for row in rows:
            ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
            with torch.inference_mode():
                scores = (self.model(input_ids=ids).logits[0].float() / temperature).log_softmax(-1)
            start = len(row.prompt_ids) - 1
            result.append([float(scores[start + n, token]) for n, token in enumerate(row.completion_ids)])
        return result
