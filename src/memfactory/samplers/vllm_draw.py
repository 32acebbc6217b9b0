"""Our way of drawing tokens, as a vLLM logits processor; and what reloaded weights need on a CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from memfactory.core.types import SamplingParams, SamplingRequest
from memfactory.samplers.draw import draw, drawn_logprobs

if TYPE_CHECKING:
    import torch

#: vLLM's `logprobs_mode` for the draw below. Its own log-probs are of temperature 1, or of what the draw has left.
LOGPROBS_MODE = "processed_logits"


@lru_cache(maxsize=1)
def seeded_draw() -> type:
    """The processor's class; a function, because its base class can only be had by importing vLLM."""
    from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

    class SeededDraw(LogitsProcessor):  # type: ignore[misc,valid-type]
        """Draws each row's token and makes it the only choice of the greedy sampling that follows.

        Requests carry `extra_args={"draw": pack(request)}`; others are left alone. The token's logit becomes its
        log-probability (`Completion.logprobs`), which vLLM reports as it is with `logprobs_mode` LOGPROBS_MODE.
        """

        def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
            # row of the batch -> parameters, seed, and vLLM's own growing list of output ids
            self._rows: dict[int, tuple[SamplingParams, int, list[int]]] = {}

        def is_argmax_invariant(self) -> bool:
            """False: vLLM must run it for greedy requests too."""
            return False

        def update_state(self, batch_update: Any) -> None:
            """Follow requests as vLLM adds, removes and moves them within its batch."""
            process_dict_updates(self._rows, batch_update, _state)

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            """Leave nothing but the drawn token of each row, with its log-probability. [rows, vocabulary], in place."""
            import torch

            rows = sorted(self._rows)
            if not rows:
                return logits
            states = [self._rows[row] for row in rows]
            params = [params for params, _, _ in states]
            index = torch.tensor(rows, device=logits.device)
            everything = len(rows) == logits.shape[0]
            ours = logits if everything else logits.index_select(0, index)
            drawn = draw(
                ours,
                params,
                [seed for _, seed, _ in states],
                # The list holds one entry for each token already drawn, also after a preemption.
                [len(output_ids) for _, _, output_ids in states],
            )
            logprobs = drawn_logprobs(ours, params, drawn)
            logits[index] = -torch.inf
            logits[index, drawn] = logprobs.to(logits.dtype)
            return logits

    return SeededDraw


def pack(request: SamplingRequest) -> tuple[float, float, int, int]:
    """What a draw depends on, as plain numbers, which cross into worker processes as well."""
    params = request.params
    return params.temperature, params.top_p, params.top_k, request.seed


def _state(
    params: Any, prompt_ids: list[int] | None, output_ids: list[int]
) -> tuple[SamplingParams, int, list[int]] | None:
    packed = (params.extra_args or {}).get("draw")
    if packed is None:
        return None
    temperature, top_p, top_k, seed = packed
    return SamplingParams(temperature, top_p, top_k), seed, output_ids


def repack_tied_head(model: Any) -> None:
    """Give a tied output layer its new weights.

    On a CPU the output layer keeps a packed copy; with tied embeddings a reload renews the embedding
    but not the copy, and log-probabilities are those of the old weights with only a warning in the log.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    head = getattr(model, "lm_head", None)
    if head is not None and getattr(head, "weight", None) is not None and head.weight.ndim == 2:
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)
