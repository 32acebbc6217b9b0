"""The Hugging Face sampler: static batches over an ordinary transformers model, on any device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.bounds import AtLeastOne, TorchDevice
from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.types import Completion, FinishReason, SamplingRequest
from memfactory.samplers.base import Layout
from memfactory.samplers.checks import check_request
from memfactory.samplers.checksums import Held
from memfactory.samplers.draw import draw, drawn_logprobs
from memfactory.samplers.driver import Driver
from memfactory.samplers.held_weights import held_by_transformers

if TYPE_CHECKING:
    import torch

    from memfactory.models.text import Codec


@dataclass(frozen=True)
class HfConfig:
    """Fields of `sampler: {type: hf}`.

    A batch holds at most `max_num_seqs` requests and `max_batch_tokens` tokens, padding and
    completions included. `device` None takes the GPU if there is one.
    """

    max_num_seqs: AtLeastOne = 64
    max_batch_tokens: AtLeastOne = 65536
    device: TorchDevice | None = None


@register("sampler", "hf", config=HfConfig)
class HfSampler:
    """Batched generation with a transformers model: slower than vLLM, runs wherever torch runs."""

    def __init__(
        self,
        max_num_seqs: int = 64,
        max_batch_tokens: int = 65536,
        device: str | None = None,
        *,
        model_folder: Path,
        codec: Codec,
        max_model_len: int,
        dtype: str = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        """Load a copy of the model of its own. Raises `BadInput` when it cannot be loaded."""
        from memfactory.models.load import load_policy

        self.max_model_len = max_model_len
        self.policy_version = 0
        self.dtype = dtype
        self._engine = _HfEngine(
            load_policy(model_folder, dtype=dtype, device=device, trust_remote_code=trust_remote_code),
            codec.eos_ids,
            max_num_seqs,
            max_batch_tokens,
        )
        self._driver = Driver(self._engine, "hf")

    async def sample(self, request: SamplingRequest) -> Completion:
        """Draw one completion; see `Sampler.sample`. Raises `TaskError` when the request does not fit."""
        check_request(request, self.max_model_len, self._engine.vocabulary)
        return await self._driver.submit(request)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Copy full weights in. Raises `BadInput` if names or shapes are not this model's."""
        if not self._driver.idle:
            raise RuntimeError("weights cannot change while requests are running")
        self._engine.load_weights(named_tensors)
        self.policy_version = self._engine.policy_version = version

    def held(self, layout: Layout, turn: int) -> list[Held]:
        """See `samplers.base.held_by`."""
        return [Held(**held_by_transformers(self._engine.model, layout))]

    def close(self) -> None:
        """Let go of the model; idempotent."""
        self._engine.model = None


@dataclass
class _Sequence:
    """One request on its way: what was drawn so far."""

    number: int
    request: SamplingRequest
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False


@dataclass
class _Batch:
    """Rows that decode together; `mask` is [rows, tokens so far], 0 where a prompt was padded on the left."""

    rows: list[_Sequence]
    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any


class _HfEngine:
    """A `StepEngine`: one step is the prefill of a new batch or one token for all rows of the present one."""

    def __init__(self, model: Any, eos_ids: frozenset[int], max_num_seqs: int, max_batch_tokens: int) -> None:
        self.model = model.eval()
        self.policy_version = 0
        self.vocabulary: int = model.get_input_embeddings().num_embeddings
        self._eos_ids = eos_ids
        self._max_num_seqs = max_num_seqs
        self._max_batch_tokens = max_batch_tokens
        self._waiting: list[_Sequence] = []
        self._batch: _Batch | None = None

    def add(self, number: int, request: SamplingRequest) -> None:
        """Queue a request."""
        self._waiting.append(_Sequence(number, request))

    def abort(self, numbers: Sequence[int]) -> None:
        """Forget requests; a row of the running batch is left out at the next step."""
        gone = set(numbers)
        self._waiting = [s for s in self._waiting if s.number not in gone]
        for row in self._batch.rows if self._batch else []:
            row.done = row.done or row.number in gone
        if self._batch and all(row.done for row in self._batch.rows):
            self._batch = None

    def step(self) -> list[tuple[int, Completion]]:
        """Draw one token for every row; return the rows that this finished."""
        import torch

        with torch.inference_mode():
            if self._batch is None:
                self._batch = self._new_batch()
            batch = self._batch
            logits = self._forward(batch)
            finished = self._draw(batch, logits)
            self._compact(batch)
        return finished

    def _new_batch(self) -> _Batch:
        """Take waiting requests of similar length, shortest first, up to the limits."""
        import torch

        self._waiting.sort(key=lambda s: (len(s.request.prompt_ids) + s.request.params.max_tokens, s.number))
        rows: list[_Sequence] = []
        for sequence in self._waiting[: self._max_num_seqs]:
            width = max(len(s.request.prompt_ids) for s in [*rows, sequence])
            width += max(s.request.params.max_tokens for s in [*rows, sequence])
            if rows and (len(rows) + 1) * width > self._max_batch_tokens:
                break
            rows.append(sequence)
        del self._waiting[: len(rows)]
        longest = max(len(s.request.prompt_ids) for s in rows)
        padding = [longest - len(s.request.prompt_ids) for s in rows]
        ids = [[0] * pad + list(s.request.prompt_ids) for pad, s in zip(padding, rows, strict=True)]
        mask = [[0] * pad + [1] * (longest - pad) for pad in padding]
        device = self.model.device
        return _Batch(rows, torch.tensor(ids, device=device), torch.tensor(mask, device=device), None)

    def _forward(self, batch: _Batch) -> torch.Tensor:
        """Logits of each row's next token, [rows, vocabulary]; `batch.ids` are the tokens not yet cached."""
        positions = (batch.mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -batch.ids.shape[1] :]
        output = self.model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        batch.cache = output.past_key_values
        return output.logits[:, -1, :].float()

    def _draw(self, batch: _Batch, logits: torch.Tensor) -> list[tuple[int, Completion]]:
        import torch

        rows = batch.rows
        params = [s.request.params for s in rows]
        ids = draw(
            logits,
            params,
            [s.request.seed for s in rows],
            [len(s.token_ids) for s in rows],
        )
        logprobs = drawn_logprobs(logits, params, ids)
        finished = []
        for row, token, logprob in zip(rows, ids.tolist(), logprobs.tolist(), strict=True):
            if row.done:
                continue
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            stopped = token in self._eos_ids
            if stopped or len(row.token_ids) >= row.request.params.max_tokens:
                row.done = True
                reason: FinishReason = "stop" if stopped else "length"
                completion = Completion(
                    tuple(row.token_ids), tuple(row.logprobs), reason, policy_version=self.policy_version
                )
                finished.append((row.number, completion))
        batch.ids = ids.unsqueeze(-1)
        batch.mask = torch.cat([batch.mask, batch.mask.new_ones(len(rows), 1)], dim=-1)
        return finished

    def _compact(self, batch: _Batch) -> None:
        """Drop finished rows once they are half of the batch; earlier, copying the cache costs more."""
        import torch

        alive = [n for n, row in enumerate(batch.rows) if not row.done]
        if not alive:
            self._batch = None
        elif 2 * len(alive) <= len(batch.rows):
            index = torch.tensor(alive, device=batch.ids.device)
            batch.rows = [batch.rows[n] for n in alive]
            batch.ids, batch.mask = batch.ids[index], batch.mask[index]
            batch.cache.batch_select_indices(index)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy tensors in by name; tied weights need to come once. Raises `BadInput` on a mismatch."""
        import torch

        own = self.model.state_dict(keep_vars=True)
        written: set[int] = set()
        with torch.no_grad():
            for name, tensor in named_tensors:
                target = own.get(name)
                if target is None:
                    raise BadInput(f"the sampler's model has no weight '{name}'")
                if target.shape != tensor.shape:
                    raise BadInput(
                        f"weight '{name}' has shape {tuple(tensor.shape)}, not {tuple(target.shape)}"
                    )
                target.copy_(tensor)
                written.add(target.data_ptr())
        parameters = dict(self.model.named_parameters())
        missing = [name for name, p in parameters.items() if p.data_ptr() not in written]
        if missing:
            raise BadInput(f"{len(missing)} weights did not come, '{missing[0]}' first")
