"""A small recipe that really learns something from random weights: how often the letter e comes."""

from __future__ import annotations

from pathlib import Path

PLUGIN = '''
from dataclasses import dataclass

from memfactory.core.registry import register


@register("reward", "letters")
@dataclass(frozen=True)
class Letters:
    """Share of the letter e in all replies of a rollout."""

    async def __call__(self, rollout):
        text = "".join(call.text for call in rollout.calls)
        return text.count("e") / max(len(text), 1)
'''

RECIPE = """
defaults:
  - sampler: hf
  - learner: local
  - algorithm: memagent
  - agent: memagent
  - prompts: memagent_tiny
  - environment: long_context
  - reward: exact_match
  - tracker: none
  - model: custom
  - _self_
plugins: [plugin.py]
seed: 1
model: {{path: {model}, max_model_len: 400}}
algorithm: {{group_size: 2, kl_coef: 0.0, drop_zero_variance: false}}
learner: {{lr: 1e-3}}
reward:
  letters: {{type: letters}}
agent: {{block_tokens: 40, memory_tokens: 6, answer_tokens: 6}}
data:
  train: {{type: facts, split: train, sections: 1, size: 40}}
  eval:
    1x: {{type: facts, split: heldout, sections: 1, size: 3}}
    2x: {{type: facts, split: heldout, sections: 2, size: 2}}
evaluation: {{concurrency: 2}}
trainer: {{steps: 3, tasks_per_step: 2, save_every: 2, keep_last: 1, eval_before: true, log_rollouts: 2}}
"""


def write_project(folder: Path, model: Path, *, plugin: bool = True) -> Path:
    """Write recipe and plugin to `folder`; return the recipe.

    A process can load the plugin from one place only: without it the reward is a part that ships.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = RECIPE.format(model=model)
    if plugin:
        (folder / "plugin.py").write_text(PLUGIN)
    else:
        text = text.replace("plugins: [plugin.py]\n", "").replace("type: letters", "type: f1")
    recipe = folder / "small.yaml"
    recipe.write_text(text)
    return recipe
