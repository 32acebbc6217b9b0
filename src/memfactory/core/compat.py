"""Keep broken optional packages from breaking the ones we need.

The GPU build of torchvision or torchaudio beside a CPU build of torch cannot load its operators, and
then every model import of transformers fails with "operator torchvision::nms does not exist". pip
makes that pair without a word, and nothing here looks at pictures or listens: so a package that does
not load is hidden for this process instead of making the user repair the environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

#: Packages with operators compiled against one build of torch, all optional to transformers and vLLM.
FRAGILE = ("torchvision", "torchaudio")

_checked: tuple[str, ...] | None = None


def prepare_imports() -> tuple[str, ...]:
    """Hide what cannot be imported; call before importing transformers or vllm. Returns the hidden names.

    The check is the import itself: version numbers do not tell whether two builds fit. It costs
    nothing extra where the package works, because transformers imports it anyway. Idempotent.
    """
    global _checked
    if _checked is None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # silences its warning about forks
        _checked = tuple(name for name in FRAGILE if _is_broken(name))
        for name in _checked:
            _hide(name)
    return _checked


def _is_broken(name: str) -> bool:
    if name in sys.modules:
        return False  # loaded already, or hidden already (None)
    if importlib.util.find_spec(name) is None:
        return False
    try:
        importlib.import_module(name)
    except Exception:  # a mismatch shows as RuntimeError, OSError, ImportError or AttributeError
        return True
    return False


def _hide(name: str) -> None:
    for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
        del sys.modules[module]
    # Documented by Python: None here makes `import name` fail and `find_spec(name)` answer None.
    sys.modules[name] = None  # type: ignore[assignment]
