"""Keep optional packages from breaking, or slowing down, the ones we need.

The GPU build of torchvision, torchaudio or torchcodec beside a CPU build of torch cannot load its operators, and
then every model import of transformers fails with "operator torchvision::nms does not exist". pip
makes that pair without a word, and nothing here looks at pictures or listens: so a package that does
not load is hidden for this process instead of making the user repair the environment.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

#: Packages with operators compiled against one build of torch, all optional to transformers and vLLM.
FRAGILE = ("torchvision", "torchaudio", "torchcodec")

#: Lines that libraries log when they load, about what this program never uses: the logger, and how the line begins.
_NOISE = {
    # A faster kernel for 4 bits on CPUs with AVX512-BF16. peft loads bitsandbytes with everything else; where 4 bits
    # are asked for, its repacking on a CPU is off (`models.load`).
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
}

_checked: tuple[str, ...] | None = None


def prepare_imports() -> tuple[str, ...]:
    """Hide what cannot be imported; call before importing transformers or vllm. Returns the hidden names.

    The check is the import itself: version numbers do not tell whether two builds fit. It costs
    nothing extra where the package works, because transformers imports it anyway. Idempotent.
    """
    global _checked
    if _checked is None:
        set_environment()
        _checked = tuple(name for name in FRAGILE if _is_broken(name))
        for name in _checked:
            _hide(name)
        _leave_out_what_is_slow()
    return _checked


def set_environment() -> None:
    """Settings that libraries read once, when they load; what the user has set stays.

    Cheap; for programs to call before anything imports torch. Idempotent.
    """
    for name, begins in _NOISE.items():
        _without(logging.getLogger(name), begins)
    # Threads that spin while they wait for each other are ten times slower as soon as anything else
    # wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a warning at each fork
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        if importlib.metadata.version("torch").endswith("+cpu"):
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else transformers' DeepSpeed check warns


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Swallow what libraries write to stderr, C++ and progress bars included."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.stderr.flush()
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


class _Without(logging.Filter):
    """Keeps back the lines of a logger that begin in one way."""

    def __init__(self, begins: str) -> None:
        super().__init__()
        self.begins = begins

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is let through."""
        return not record.getMessage().startswith(self.begins)


def _without(logger: logging.Logger, begins: str) -> None:
    if not any(isinstance(one, _Without) and one.begins == begins for one in logger.filters):
        logger.addFilter(_Without(begins))


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


def _leave_out_what_is_slow() -> None:
    """Have transformers do without scikit-learn and scipy, which it loads with every model.

    They serve one way of generating and losses of detectors, and with pandas, which comes too, they are a third of the
    time in which transformers loads. Others can still import them.
    """
    names = [name for name in ("sklearn", "scipy") if name not in sys.modules]
    if not names or importlib.util.find_spec("transformers") is None:
        return
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        from transformers.utils import import_utils

        for name in names:
            getattr(import_utils, f"is_{name}_available")()  # transformers keeps the answer
    finally:
        for name in names:
            del sys.modules[name]


def let_modules_be_scanned() -> None:
    """Keep llvmlite's library object from breaking vLLM's start; call before an engine is made. Idempotent.

    vLLM looks into the `__dict__` of everything in every loaded module. llvmlite's library object takes any attribute
    for a C function, and so claims a `__dict__` that is no dictionary: an engine could not start in a process that had
    loaded numba before.
    """
    ffi = sys.modules.get("llvmlite.binding.ffi")
    library = getattr(ffi, "_lib_wrapper", None)
    if library is None or getattr(library, "_memfactory_guarded", False):
        return
    look_up = library.__getattr__

    def guarded(self: object, name: str) -> object:
        if name == "__dict__":
            raise AttributeError(name)
        return look_up(self, name)

    library.__getattr__ = guarded
    library._memfactory_guarded = True
