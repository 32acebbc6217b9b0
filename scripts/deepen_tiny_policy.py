"""Give a policy another layer that at first changes nothing: its two output projections are zero.

Copying forms in two layers (scripts/make_tiny_init.py). What comes after, matching a memory by several words and
comparing it with a fact, is learned sooner with a third, and what was learned stays.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from make_tiny_init import QK_GAIN


def deepen(model: PreTrainedModel, *, seed: int) -> PreTrainedModel:
    """The same model with one more layer on top; equal arguments give equal weights."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers += 1
    config.layer_types = [*config.layer_types, config.layer_types[-1]]
    torch.manual_seed(seed)
    deeper: PreTrainedModel = type(model)(config).float()
    deeper.load_state_dict(model.state_dict(), strict=False)
    layer = deeper.model.layers[-1]
    with torch.no_grad():
        attention = layer.self_attn
        attention.q_norm.weight.fill_(QK_GAIN)
        attention.k_norm.weight.fill_(QK_GAIN)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    deeper.generation_config = model.generation_config
    return deeper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the policy")
    parser.add_argument("folder", type=Path, help="where the deeper one is written")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = deepen(AutoModelForCausalLM.from_pretrained(arguments.source), seed=arguments.seed)
    model.save_pretrained(arguments.folder)
    AutoTokenizer.from_pretrained(arguments.source).save_pretrained(arguments.folder)
    (arguments.folder / "model.safetensors").chmod(0o644)
    print(f"{sum(p.numel() for p in model.parameters())} parameters written to {arguments.folder}")


if __name__ == "__main__":
    main()
