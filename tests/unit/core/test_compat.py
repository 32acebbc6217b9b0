"""What is hidden from transformers, and from nobody else."""

from __future__ import annotations

import subprocess
import sys


def test_models_load_without_what_is_slow_and_others_have_it_still() -> None:
    code = (
        "import sys; from memfactory.core.compat import prepare_imports; prepare_imports();"
        "from transformers import AutoModelForCausalLM, Qwen3ForCausalLM;"
        "print([name for name in ('sklearn', 'scipy', 'pandas') if name in sys.modules]);"
        "import sklearn.metrics, scipy.optimize; print(sklearn.metrics.roc_curve.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "roc_curve"]
