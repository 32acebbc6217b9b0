"""What is hidden from transformers, and from nobody else."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from memfactory.core import compat


def test_models_load_without_what_is_slow_and_others_have_it_still() -> None:
    code = (
        "import sys; from memfactory.core.compat import prepare_imports; prepare_imports();"
        "from transformers import AutoModelForCausalLM, Qwen3ForCausalLM;"
        "print([name for name in ('sklearn', 'scipy', 'pandas') if name in sys.modules]);"
        "import sklearn.metrics, scipy.optimize; print(sklearn.metrics.roc_curve.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "roc_curve"]


def test_one_line_of_a_library_is_kept_back_and_its_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        compat.set_environment()
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning(
        "Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "No module named 'kernels'"
    )
    logger.warning("something that matters")
    assert [record.getMessage() for record in caplog.records] == ["something that matters"]
    assert len(logger.filters) == 1
