"""What a `vllm serve` process loads of ours: the seeded draw, and how its workers take weights from a folder.

Both are named on the server's command line and imported there only, never by the process that trains.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.samplers.held_weights import adapter_held_by_vllm, held_by_vllm
from memfactory.samplers.vllm_draw import repack_tied_head, seeded_draw

if TYPE_CHECKING:
    import torch

#: `--logits-processors memfactory.samplers.vllm_plugin:SeededDraw`
SeededDraw = seeded_draw()


class PolicyWeights:
    """`--worker-extension-cls memfactory.samplers.vllm_plugin.PolicyWeights`: methods that vLLM's workers get.

    They are called through `/collective_rpc`, on every worker of a server, and answer with plain values.
    """

    def memfactory_describe(self) -> dict[str, Any]:
        """What the sampler must know of a server before it trusts it."""
        worker: Any = self
        model, adapters = worker.vllm_config.model_config, worker.vllm_config.lora_config
        return {
            "vocabulary": int(model.get_vocab_size()),
            "max_model_len": int(model.max_model_len),
            "logprobs": str(model.logprobs_mode),
            "draw": any("SeededDraw" in str(name) for name in model.logits_processors or ()),
            "device": str(worker.device.type),
            "dtype": str(model.dtype).removeprefix("torch."),
            "adapter_rank": 0 if adapters is None else int(adapters.max_lora_rank),
        }

    def memfactory_load(self, folder: str) -> dict[str, Any]:
        """Load all weights of `folder` (safetensors, Hugging Face names) in place; tells how many tensors."""
        worker: Any = self
        count = 0

        def tensors() -> Iterator[tuple[str, torch.Tensor]]:
            nonlocal count
            from safetensors import safe_open

            for path in sorted(Path(folder).glob("*.safetensors")):
                with safe_open(path, "pt") as file:
                    for name in file.keys():  # noqa: SIM118 (not a mapping)
                        count += 1
                        yield name, file.get_tensor(name)

        worker.reload_weights(weights_iterator=tensors())
        if count == 0:
            raise FileNotFoundError(f"{folder} holds no weights; do server and run see the same folder?")
        self.memfactory_repack()
        return {"tensors": count}

    def memfactory_held(self, layout: str, turn: str) -> dict[str, Any]:
        """What this worker's model holds of the tensors of a layout (JSON): see `held_weights.held_by_vllm`."""
        worker: Any = self
        return _plain(
            held_by_vllm(worker.model_runner.get_model(), json.loads(layout), int(turn), _shards(worker))
        )

    def memfactory_held_adapter(self, layout: str) -> dict[str, Any]:
        """The same of the adapter that came last: see `held_weights.adapter_held_by_vllm`."""
        worker: Any = self
        ids = worker.model_runner.lora_manager._adapter_manager.lora_index_to_id
        slot = max(range(len(ids)), key=lambda place: ids[place] or 0)
        model = worker.model_runner.get_model()
        return _plain(adapter_held_by_vllm(model, json.loads(layout), slot, _shards(worker)))

    def memfactory_repack(self) -> None:
        """After any change of weights: see `vllm_draw.repack_tied_head`."""
        worker: Any = self
        if worker.device.type == "cpu":
            repack_tied_head(worker.model_runner.get_model())


def _shards(worker: Any) -> int:
    parallel = worker.vllm_config.parallel_config
    return int(parallel.tensor_parallel_size) * int(parallel.pipeline_parallel_size)


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Checksums as text: they have more digits than numbers of JSON keep everywhere."""
    return {**found, "digests": {name: str(value) for name, value in found["digests"].items()}}
