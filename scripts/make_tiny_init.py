"""Make the untrained tiny policy: a Qwen3 model whose random weights already lean towards copying.

From an ordinary initialisation a two-layer policy stays for thousands of steps at "some value of this text", until
induction (find the name, say what followed it) appears by luck. With the four plain changes below, together, it formed
within 300 steps on bare pairs, in the one seed tried (0); which of them are needed was not measured:

- queries and keys start equal, and an output projection starts as the transpose of its values ("mimetic
  initialisation",
  Trockman and Kolter, arXiv 2305.09828): tokens attend to their like, and what they carry keeps its meaning;
- embeddings are larger than what the layers add, so that a token's identity survives the first layer;
- all embeddings share one constant component, so that attention by distance is possible from the first step;
- query and key norms start a little above 1, for sharper attention.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

STD = 0.08
EMBEDDING_GAIN = 5.0
CONSTANT = 0.5
QK_GAIN = 1.2
DOWN_GAIN = 0.2


def build(
    tokenizer: PreTrainedTokenizerBase, *, seed: int, layers: int, width: int, mlp: int, heads: int
) -> Qwen3ForCausalLM:
    """Build the model for a tokenizer; equal arguments give equal weights."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=32,
        tie_word_embeddings=True,
        initializer_range=STD,
        max_position_embeddings=tokenizer.model_max_length,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).float()
    with torch.no_grad():
        embeddings = model.model.embed_tokens.weight
        embeddings[:, 0] = CONSTANT
        embeddings *= EMBEDDING_GAIN
        model.model.norm.weight /= EMBEDDING_GAIN
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.q_norm.weight.fill_(QK_GAIN)
            attention.k_norm.weight.fill_(QK_GAIN)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.o_proj.weight.copy_(attention.v_proj.weight.T)
            layer.mlp.down_proj.weight *= DOWN_GAIN
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the model is written; holds the tokenizer already")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--mlp", type=int, default=480)
    parser.add_argument("--heads", type=int, default=4, help="of 32 dimensions each")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    shape = {name: getattr(arguments, name) for name in ("layers", "width", "mlp", "heads")}
    model = build(tokenizer, seed=arguments.seed, **shape)
    model.save_pretrained(arguments.folder)
    (arguments.folder / "model.safetensors").chmod(0o644)
    print(f"{sum(p.numel() for p in model.parameters())} parameters written to {arguments.folder}")


if __name__ == "__main__":
    main()
