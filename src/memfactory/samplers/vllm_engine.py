"""vLLM behind the `StepEngine` interface, and what it takes to use it beside a learner.

Everything that depends on vLLM's version is in this file, in `vllm_draw.py` and in `vllm_adapters.py`.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.compat import let_modules_be_scanned, prepare_imports, quiet_stderr
from memfactory.core.errors import BadInput, ServiceError, TaskError
from memfactory.core.types import Completion, SamplingRequest
from memfactory.samplers.held_weights import adapter_held_by_vllm, held_by_vllm
from memfactory.samplers.vllm_adapters import AdapterSlot, slot_rank
from memfactory.samplers.vllm_draw import LOGPROBS_MODE, pack, repack_tied_head

if TYPE_CHECKING:
    import torch

    from memfactory.samplers.base import AdapterFiles, Layout


#: Engines of this process that are open. vLLM keeps its process groups in globals that all of them use.
_OPEN: weakref.WeakSet[VllmEngine] = weakref.WeakSet()


class VllmEngine:
    """One vLLM engine, advanced step by step.

    vLLM itself is always asked for greedy sampling: `vllm_draw.SeededDraw`, a logits processor,
    draws the token by our own rule and leaves vLLM nothing to choose. vLLM's own per-request seeds
    cost a Python loop over the batch at every token, and die in chunked prefill on a CPU.
    """

    def __init__(
        self,
        model_folder: Path,
        *,
        eos_ids: Sequence[int],
        cpu_cache_bytes: int,
        enforce_eager: bool | None,
        options: dict[str, Any],
        lora_rank: int = 0,
        sleeps: bool = False,
    ) -> None:
        """`lora_rank` above 0: the engine also takes adapters of at most this rank, one at a time.

        `sleeps`: `sleep` gives back the GPU's memory; without it `sleep` does nothing.
        """
        self.policy_version = 0
        self._sleeps = sleeps
        self._asleep = False
        self._adapters = AdapterSlot() if lora_rank else None
        self._eos_ids = list(eos_ids)
        _set_environment()
        prepare_imports()
        let_modules_be_scanned()
        with _quiet(), _torch_threads_kept():
            import vllm
            from vllm.platforms import current_platform

            let_modules_be_scanned()  # vLLM itself may just have loaded numba

            from memfactory.samplers.vllm_draw import seeded_draw

            on_cpu = current_platform.is_cpu()
            options = {**options, "enforce_eager": on_cpu if enforce_eager is None else enforce_eager}
            if on_cpu:
                options["kv_cache_memory_bytes"] = cpu_cache_bytes
            if sleeps:
                if on_cpu:
                    raise BadInput(
                        "sampler.sleep: only a GPU's memory can be given back; leave it out on a CPU"
                    )
                options["enable_sleep_mode"] = True
            if lora_rank and not on_cpu and options["dtype"] == "float32":
                raise BadInput(
                    "sampler.adapter_sync: vLLM's kernels for adapters take 16 bits on a GPU; set "
                    "model.dtype=bfloat16, or leave it out"
                )
            if lora_rank:
                options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": slot_rank(lora_rank)}
            try:
                self._llm: Any = vllm.LLM(
                    model=str(model_folder),
                    skip_tokenizer_init=True,  # ids in, ids out
                    generation_config="vllm",  # never the folder's own sampling defaults
                    logprobs_mode=LOGPROBS_MODE,
                    logits_processors=[seeded_draw()],
                    disable_log_stats=True,
                    use_tqdm_on_load=False,
                    **options,
                )
            except Exception as error:  # vLLM raises ValueError, RuntimeError, pydantic's, torch's ...
                raise BadInput(f"vLLM cannot start with {model_folder}: {_reason(error)}") from error
        self._params = vllm.SamplingParams
        self._final_only = vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        self._on_cpu = on_cpu
        self.vocabulary: int = self._llm.llm_engine.model_config.get_vocab_size()
        # The engine's own objects live as long as it does; looking through them again and again in the middle of
        # rollouts costs a few percent.
        gc.collect()
        gc.freeze()
        _OPEN.add(self)

    def add(self, number: int, request: SamplingRequest) -> None:
        """Take a request. Raises `TaskError` when vLLM refuses it."""
        params = self._params(
            temperature=0.0,
            max_tokens=request.params.max_tokens,
            stop_token_ids=list(self._eos_ids),
            logprobs=0,  # of the drawn token only
            detokenize=False,
            output_kind=self._final_only,
            extra_args={"draw": pack(request)},
            skip_clone=True,  # made for this request alone
        )
        try:
            self._llm.llm_engine.add_request(
                str(number),
                {"prompt_token_ids": list(request.prompt_ids)},
                params,
                lora_request=None if self._adapters is None else self._adapters.request,
            )
        except ValueError as error:
            raise TaskError(f"{request.label or 'request'}: {_reason(error)}") from error

    def abort(self, numbers: Sequence[int]) -> None:
        """Forget requests; unknown numbers are ignored."""
        self._llm.llm_engine.abort_request([str(number) for number in numbers])

    def step(self) -> list[tuple[int, Completion]]:
        """One forward pass for everything that runs; returns what has finished."""
        outputs = self._llm.llm_engine.step()
        return [(int(o.request_id), self._completion(o.outputs[0])) for o in outputs if o.finished]

    def _completion(self, output: Any) -> Completion:
        ids = tuple(int(i) for i in output.token_ids)
        logprobs = tuple(float(at[i].logprob) for i, at in zip(ids, output.logprobs, strict=True))
        reason = output.finish_reason
        return Completion(
            token_ids=ids,
            logprobs=logprobs,
            finish_reason=reason if reason in ("stop", "length") else "error",
            policy_version=self.policy_version,
        )

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Reload all weights in place. Raises `ServiceError` when vLLM refuses them."""
        detached = ((name, tensor.detach()) for name, tensor in named_tensors)
        try:
            self._wake("weights")
            # `model.load_weights` called directly fails on a CPU, where weights are packed at start.
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": detached})
            if self._on_cpu:
                self._llm.apply_model(repack_tied_head)
            self._wake("kv_cache")
        except Exception as error:
            raise ServiceError(f"vLLM cannot take over the weights: {_reason(error)}") from error
        self._forget_prefixes()

    def held(self, layout: Layout, turn: int) -> dict[str, Any]:
        """What the model holds: see `held_weights.held_by_vllm`."""
        found: list[dict[str, Any]] = self._llm.apply_model(partial(held_by_vllm, layout=layout, turn=turn))
        return found[0]

    def held_adapter(self, layout: Layout) -> dict[str, Any]:
        """What the adapter's slot holds: see `held_weights.adapter_held_by_vllm`."""
        found: list[dict[str, Any]] = self._llm.apply_model(partial(adapter_held_by_vllm, layout=layout))
        return found[0]

    def load_adapter(self, adapter: AdapterFiles) -> None:
        """Put an adapter in the place of the one before. Raises `ServiceError` when vLLM refuses it."""
        assert self._adapters is not None
        try:
            self._wake("weights")
            self._wake("kv_cache")
            self._adapters.put(self._llm.llm_engine, adapter)
        except Exception as error:
            raise ServiceError(f"vLLM cannot take over the adapter: {_reason(error)}") from error
        self._forget_prefixes()

    def sleep(self) -> None:
        """Give back the memory of weights and cache until the next load. Raises `ServiceError` if vLLM cannot.

        Weights that will be loaded again are dropped; under adapters the engine's own ones wait in the host's memory.
        """
        if not self._sleeps or self._asleep:
            return
        try:
            self._llm.sleep(level=2 if self._adapters is None else 1)
        except Exception as error:
            raise ServiceError(f"vLLM cannot give back its memory: {_reason(error)}") from error
        self._asleep = True

    def _wake(self, tag: str) -> None:
        """Take the memory of `weights` back, then that of the `kv_cache`."""
        if not self._asleep:
            return
        import torch

        torch.cuda.empty_cache()  # what the learner has freed and keeps for later is vLLM's now
        self._asleep = not self._llm.wake_up(tags=[tag])

    def _forget_prefixes(self) -> None:
        if not self._llm.reset_prefix_cache():
            raise ServiceError("vLLM did not reset its prefix cache: stale prefixes would be used")

    def close(self) -> None:
        """Shut the engine down and let go of its memory; other engines of this process go on."""
        _OPEN.discard(self)
        if self._adapters is not None:
            self._adapters.close()
        with _quiet():
            client = self._llm.llm_engine.engine_core
            core = getattr(client, "engine_core", None)  # there if the core lives in this process
            if _OPEN and core is not None:
                # The whole shutdown also destroys the process groups, and with them every other engine.
                core.model_executor.shutdown()
                core.scheduler.shutdown()
            else:
                client.shutdown()
            self._llm = None
            gc.unfreeze()
            gc.collect()


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """vLLM replaces `torch.set_num_threads` for the whole process; put it back for the learner."""
    import torch

    function, threads = torch.set_num_threads, torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads = function
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _quiet() -> AbstractContextManager[None]:
    """No noise at start-up, unless `VLLM_LOGGING_LEVEL` asks for it."""
    wanted = os.environ.get("VLLM_LOGGING_LEVEL", "ERROR").upper() not in ("ERROR", "CRITICAL")
    return nullcontext() if wanted else quiet_stderr()


def _reason(error: BaseException) -> str:
    """The most telling line of an error: pydantic and vLLM wrap it in several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() and "validation error" not in line.lower()]
    return ((telling or lines or [type(error).__name__])[0])[:400]


def _set_environment() -> None:
    """Environment variables that vLLM reads at import; what the user has set stays."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # The engine's core must live in this process: its steps and the learner's take turns.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # Else vLLM pins every thread of the process, the learner's too, to one core.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # The draw below is a logits processor written for, and tested on, this model runner.
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
