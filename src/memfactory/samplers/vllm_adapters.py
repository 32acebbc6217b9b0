"""LoRA adapters in a vLLM engine: one at a time, another with each sync."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from memfactory.core.errors import BadInput

if TYPE_CHECKING:
    from memfactory.samplers.base import AdapterFiles


def wants_adapters(setting: bool | None, dtype: str, lora_rank: int) -> bool:
    """Whether a sync hands over adapters alone: as `adapter_sync` says, and for None where merging would round.

    Merged into 16-bit weights, the first updates of an adapter are mostly lost to rounding; in float32 nothing is, and
    vLLM's kernels on a GPU take no float32.
    """
    return lora_rank > 0 and (dtype != "float32" if setting is None else setting)


def slot_rank(rank: int) -> int:
    """The smallest rank for which vLLM has slots, and into which `rank` fits. Raises `BadInput` if there is none."""
    from vllm.config.lora import MaxLoRARanks

    sizes = sorted(get_args(MaxLoRARanks))
    fitting = [size for size in sizes if size >= rank]
    if not fitting:
        raise BadInput(
            f"sampler.adapter_sync: vLLM takes adapters of rank {sizes[-1]} at most, and learner.lora_rank is {rank}; "
            "lower it, or set sampler.adapter_sync=false"
        )
    return int(fitting[0])


class AdapterSlot:
    """The adapter that an engine samples with: its folder, and the request by which vLLM knows it.

    vLLM knows adapters by number and never reads one again, so each sync has a new number, also for weights of a
    version that was there before. `request` is None before the first sync: the engine's own weights sample.
    """

    def __init__(self) -> None:
        self.request: Any = None
        self._number = 0
        self._folder = Path(tempfile.mkdtemp(prefix="memfactory-adapters-"))

    def put(self, engine: Any, adapter: AdapterFiles) -> None:
        """Write `adapter`, drop the one before from `engine` (vLLM's `LLMEngine`), and let it load this one.

        Raises whatever vLLM raises, `RuntimeError` if it declines without a word; there is then no adapter.
        """
        from vllm.lora.request import LoRARequest

        before, self.request = self.request, None
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        adapter.write(folder)
        if before is not None:
            if not engine.remove_lora(before.lora_int_id):
                raise RuntimeError(f"adapter {before.lora_int_id} could not be removed")
            shutil.rmtree(before.lora_path)
        request = LoRARequest(f"policy-{self._number}", self._number, str(folder))
        if not engine.add_lora(request):
            raise RuntimeError(f"adapter {self._number} was not loaded")
        self.request = request

    def close(self) -> None:
        """Remove the folder; idempotent."""
        shutil.rmtree(self._folder, ignore_errors=True)
