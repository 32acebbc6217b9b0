"""Done once by the fork server of `launching`: what every run would import, or warm up, again."""

from __future__ import annotations

import importlib
import importlib.util
import io

from memfactory.core.compat import prepare_imports, quiet_stderr
from memfactory.samplers.vllm_engine import _set_environment
from tests.integration.launching import PRELOAD

prepare_imports()
for _name in PRELOAD:
    importlib.import_module(_name)

if importlib.util.find_spec("vllm") is not None:
    _set_environment()
    with quiet_stderr():
        importlib.import_module("vllm").LLM  # noqa: B018 (vLLM imports its engine when it is first named)

from matplotlib.figure import Figure  # noqa: E402

from memfactory.models.load import load_tokenizer  # noqa: E402
from memfactory.models.source import resolve_model  # noqa: E402
from memfactory.recipe.load import load_recipe  # noqa: E402

load_recipe("memagent")  # imports every component, hydra and its grammar
load_tokenizer(resolve_model("tiny"))
Figure().savefig(io.BytesIO(), format="png")
