"""Models of a few thousand random weights, and rows for them."""

from __future__ import annotations

import random

import torch

from memfactory.core.types import Row

VOCABULARY = 61


def random_model(kind: str = "qwen3", seed: int = 0, **changes):
    """A randomly initialised causal LM of the architecture, with logits far from uniform."""
    import transformers

    names = {"qwen3": "Qwen3", "llama": "Llama", "gemma2": "Gemma2", "granite": "Granite", "cohere": "Cohere"}
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = getattr(transformers, f"{names[kind]}Config")(**sizes)
        model = getattr(transformers, f"{names[kind]}ForCausalLM")(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def random_rows(count: int = 12, seed: int = 0, rollouts: int = 4) -> list[Row]:
    """Ragged rows with plausible behaviour log-probs and advantages of both signs."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        prompt = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, 40))]
        completion = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, 12))]
        logprobs = tuple(-draw.uniform(0.5, 5) for _ in completion)
        advantage = draw.choice((1.0, -1.0, 0.5))
        rows.append(Row(tuple(prompt), tuple(completion), logprobs, advantage, index % rollouts, "memory"))
    return rows


def plain_logprobs(model, row: Row) -> torch.Tensor:
    """Log-probs of the row's completion by the model's own forward pass, one row at a time, without padding."""
    ids = torch.tensor([row.prompt_ids + row.completion_ids])
    logits = model(ids).logits[0, len(row.prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(row.completion_ids)[:, None]).squeeze(-1)
