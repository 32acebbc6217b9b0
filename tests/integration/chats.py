"""A recipe for chats in tests: its sampler follows rules instead of a model, and can be slow, down, or killed."""

from __future__ import annotations

from pathlib import Path

PLUGIN = '''
import asyncio
import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from memfactory.core.errors import ServiceError
from memfactory.core.registry import register
from memfactory.core.types import Completion


@dataclass(frozen=True)
class RuleConfig:
    """`kill_at`: the request at which the process kills itself; 0 is never."""

    kill_at: int = 0


@register("sampler", "rule", config=RuleConfig)
class RuleSampler:
    """Remembers every line that is not small talk, and answers with the newest memory it is shown.

    Waits long for what says "slowly"; fails while there is a file called `down`, and
    replies to "gibberish" in no layout until there is one called `patient`.
    """

    def __init__(self, kill_at, max_model_len):
        self.max_model_len = max_model_len
        self.policy_version = 0
        self.kill_at = kill_at
        self.requests = 0

    async def sample(self, request):
        text = request.messages[0].content
        self.requests += 1
        if self.requests == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if Path("down").exists():
            raise ServiceError("the server cannot be reached")
        if "slowly" in text.splitlines()[-1]:
            await asyncio.sleep(600)
        return Completion((), (), "stop", reply(text))

    def load_weights(self, named_tensors, version):
        raise NotImplementedError

    def close(self):
        pass


def reply(text):
    kind, _, rest = text.partition("\\n")
    if "gibberish" in rest and not Path("patient").exists():
        return "I would rather not."
    if kind == "EXTRACT":
        return json.dumps({"facts": [line for line in rest.splitlines() if "hello" not in line]})
    if kind == "MANAGE":
        facts = [line[2:] for line in rest.splitlines() if line.startswith("- ")]
        return json.dumps({"operations": [{"op": "ADD", "text": fact} for fact in facts]})
    memories = re.findall(r"^\\[(m\\d+)\\] (?:\\(.*?\\) )?(.*)$", rest, re.MULTILINE)
    if not memories:
        return "Memories: none\\n\\\\boxed{no idea}"
    return f"Memories: {memories[-1][0]}\\n\\\\boxed{{{memories[-1][1]}}}"
'''

RECIPE = """
defaults:
  - sampler: scripted
  - learner: local
  - algorithm: grpo
  - agent: memory_r1
  - prompts: memory_r1
  - environment: memory_bank
  - data: dialogues
  - reward: memory_r1
  - tracker: none
  - model: custom
  - _self_
plugins: [rules.py]
model: {{path: {model}, max_model_len: 400}}
sampler: {{type: rule}}
agent:
  extractor_tokens: 10
  manager_tokens: 10
  answer_tokens: 10
  top_k: 5
  retriever: {{embedder: {{type: hashing_for_tests}}}}
prompts:
  extract: "EXTRACT\\n{{session}}"
  manage: "MANAGE\\n{{memories}}\\n{{facts}}"
  answer_from_memories: "ANSWER\\n{{memories}}\\n{{question}}"
"""


def write_chat(folder: Path, model: Path) -> Path:
    """Write recipe and plugin to a folder; returns the recipe, `talk.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.py").write_text(PLUGIN)
    recipe = folder / "talk.yaml"
    recipe.write_text(RECIPE.format(model=model))
    return recipe
