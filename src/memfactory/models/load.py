"""Models and tokenizers from a checked local folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.compat import prepare_imports
from memfactory.core.errors import BadInput
from memfactory.models.finite import require_finite_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def load_policy(
    folder: Path,
    *,
    dtype: str = "float32",
    device: str | None = None,
    attn: str = "sdpa",
    trust_remote_code: bool = False,
    quantization: str | None = None,
) -> PreTrainedModel:
    """The causal language model of a folder, in evaluation mode.

    `dtype` is a torch dtype's name; `device` None takes the GPU if there is one; `attn` is a transformers
    attention implementation; `trust_remote_code` runs code that the folder brings; `quantization` `nf4` packs
    linear layers into 4 bits, to be computed in `dtype`. Raises `BadInput` when the folder holds no model that
    transformers can load.
    """
    prepare_imports()
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise BadInput(f"unknown dtype '{dtype}'; use float32 or bfloat16")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    packed: dict[str, Any] = {}
    if quantization is not None:
        packed = {"quantization_config": _four_bits(quantization, kind), "device_map": {"": place}}
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            attn_implementation=attn,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            **packed,
        )
    except Exception as error:  # transformers raises whatever its loaders raise
        raise BadInput(f"{folder}: cannot load the model: {_first_line(error)}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    # What a model folder recommends for sampling is never used: parameters are explicit.
    if quantization is not None:
        _keep_gradients(model)
        _check_unpacking(model, folder)
    else:
        model = model.to(place)
    require_finite_model(model, f"model.path: {folder}")
    return model.eval()  # type: ignore[no-any-return]


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder. Raises `BadInput` when there is none that transformers can load."""
    prepare_imports()
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise BadInput(f"{folder}: cannot load the tokenizer: {_first_line(error)}") from error
    return tokenizer


def _four_bits(kind: str, dtype: Any) -> Any:
    """QLoRA's data type: 4-bit NormalFloat in blocks of 64, with quantized block scales (arXiv 2305.14314)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _keep_gradients(model: Any) -> None:
    """Keep bitsandbytes from repacking weights for CPUs with AVX512-BF16 when they are first only scored with.

    Its kernel for the repacked form has no backward pass, and takes every later forward pass too.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _check_unpacking(model: Any, folder: Path) -> None:
    """Refuse layers whose weights bitsandbytes packs but does not unpack to what was packed.

    Its kernel for CPUs with AVX512 goes wrong, without an error, where a row is not whole blocks of 64: the model
    would compute with weights that are a fifth of their size away from the checkpoint's. Tried on each width once.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    widths: dict[tuple[int, torch.device], str] = {}
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            widths.setdefault((int(state.shape[-1]), module.weight.device), name)
    for (width, place), name in widths.items():
        numbers = torch.linspace(-1, 1, 8 * width, device=place).roll(width // 3).reshape(8, width)
        unpacked = dequantize_4bit(*quantize_4bit(numbers, quant_type="nf4"))
        if (unpacked - numbers).abs().max() > _COARSEST_STEP:
            raise BadInput(
                f"{folder}: learner.quantization: bitsandbytes unpacks rows of {width} weights wrongly on this CPU "
                f"({name}; they are no multiple of 64): leave learner.quantization out, or use a GPU"
            )


#: Half of the widest gap between two values of NF4 (-1 and -0.696), for weights within [-1, 1], and rounding.
_COARSEST_STEP = 0.16


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
