"""Log-probabilities of sampled tokens under a causal language model, without ever holding all logits.

The decoder runs on the padded rows; only the hidden states that predict a completion token go through the
output embedding, some at a time, and each such chunk of logits is computed again in the backward pass
instead of being kept. Peak memory is one chunk of logits, whatever the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from memfactory.algorithms.rows import Batch
from memfactory.core.errors import BadInput

CHUNK_LOGITS = 2**24
"""Most logits (tokens × vocabulary) that exist at a time: 64 MiB in float32."""


class TokenScorer:
    """Scores the completion tokens of batches under one Hugging Face causal language model.

    `model` may be a plain model or one into which peft put adapters. The decoder and the output embedding are
    called as modules, so hooks of a sharded engine fire as usual. `amp_dtype` is the type of autocast
    (None: compute in the type of the weights).

    Raises `BadInput` for a model whose logits are not what `ChunkedHead` computes.
    """

    def __init__(
        self, model: Any, amp_dtype: torch.dtype | None = None, chunk_logits: int = CHUNK_LOGITS
    ) -> None:
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._amp_dtype = amp_dtype
        self._decoder = self._model.get_decoder()
        embedding = self._model.get_output_embeddings()
        self._vocabulary = int(embedding.weight.shape[0])
        config = self._model.config.get_text_config()
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        self.head = ChunkedHead(
            embedding,
            rows=max(1, chunk_logits // self._vocabulary),
            scale=scale,
            soft_cap=getattr(config, "final_logit_softcapping", None),
        )

    def __call__(self, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Score one batch under softmax(logits / temperature), the distribution that acts when sampling at it.

        Returns:
            `logp`: `[calls, tokens]` float32 nats, 0 where masked, with a graph if gradients are enabled;
            `entropy`: `[n]` nats of that distribution at each completion token, without a graph.
        """
        with self._autocast(batch.input_ids.device):
            # Where positions begin again, transformers' masks keep the rows of a packed sequence apart.
            places = {} if batch.position_ids is None else {"position_ids": batch.position_ids}
            output = self._decoder(input_ids=batch.input_ids, use_cache=False, **places)
            hidden = output.last_hidden_state.flatten(0, 1).index_select(0, batch.positions)
            logp, entropy = self.head(hidden, batch.targets, temperature)
        scattered = torch.zeros(batch.mask.shape, device=logp.device).masked_scatter(batch.mask, logp)
        return scattered, entropy

    @torch.no_grad()
    def verify(self, packed: bool = False) -> None:
        """Compare with the model's own logits on a few tokens; if `packed`, also a packed row with the row alone.

        Raises:
            BadInput: they differ, so this architecture transforms its logits in a way unknown to us, or its rows see
                each other when they are packed.
        """
        device = next(self.head.parameters()).device
        ids = (torch.arange(8, device=device) * 37 % self._vocabulary).unsqueeze(0)
        training, _ = self._model.training, self._model.eval()
        with self._autocast(device):
            ours = self.head.logits(self._decoder(input_ids=ids, use_cache=False).last_hidden_state)
            theirs = self._model(input_ids=ids, use_cache=False).logits.float()
            apart = self._rows_apart(ids) if packed else 0.0
        self._model.train(training)
        if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2):
            kind = getattr(self._model.config, "model_type", "?")
            raise BadInput(
                f"models of type '{kind}' cannot be trained by this learner: they change their logits after the "
                f"output embedding (largest difference {(ours - theirs).abs().max().item():.3g})"
            )
        narrow = self._amp_dtype is not None or self.head.embedding.weight.dtype != torch.float32
        if apart > (3e-2 if narrow else 1e-3):
            raise BadInput(
                "learner.packing: this model's rows see each other when they are packed (hidden states differ by "
                f"{apart:.2g}); leave learner.packing out"
            )

    def _rows_apart(self, ids: Tensor) -> float:
        """Relative difference that a row before it makes to a packed row's hidden states."""
        alone = self._decoder(input_ids=ids, use_cache=False).last_hidden_state.float()
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        twice = self._decoder(
            input_ids=torch.cat([ids.flip(1), ids], 1),
            position_ids=torch.cat([places, places], 1),
            use_cache=False,
        ).last_hidden_state[:, ids.shape[1] :]
        return ((twice.float() - alone).norm() / alone.norm()).item()

    def _autocast(self, device: torch.device) -> torch.autocast:
        enabled = self._amp_dtype is not None
        return torch.autocast(device.type, dtype=self._amp_dtype or torch.bfloat16, enabled=enabled)


class ChunkedHead(torch.nn.Module):
    """The output embedding with softmax and look-up, on at most `rows` hidden states at a time.

    A module of its own so that a sharded engine gathers the embedding once for all chunks: their number depends on
    the rows, and ranks would wait for each other for ever if each chunk were an exchange.
    """

    def __init__(self, embedding: Any, rows: int, scale: float, soft_cap: float | None) -> None:
        super().__init__()
        self.embedding = embedding
        self.plain = type(embedding) is torch.nn.Linear
        self._rows = rows
        self._scale = scale
        self._soft_cap = soft_cap

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[n, vocabulary]` in float32 of hidden states `[n, width]`.

        Applies Gemma's soft cap (`final_logit_softcapping`), Cohere's `logit_scale`, Granite's `logits_scaling`.
        """
        if self.plain:  # not called as a module: each call would be an exchange of its own
            logits = torch.nn.functional.linear(hidden, self.embedding.weight, self.embedding.bias).float()
        else:
            logits = self.embedding(hidden).float()
        if self._scale != 1.0:
            logits = logits * self._scale
        if self._soft_cap:
            logits = torch.tanh(logits / self._soft_cap) * self._soft_cap
        return logits

    def forward(self, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probs of the targets and entropies, both `[n]` in nats, for hidden states `[n, width]`."""
        if hidden.shape[0] <= self._rows:  # one chunk: keeping it costs no more than the chunk itself
            return self._score_chunk(hidden, targets, temperature)
        parts = []
        for piece, wanted in zip(hidden.split(self._rows), targets.split(self._rows), strict=True):
            if torch.is_grad_enabled():
                parts.append(checkpoint(self._score_chunk, piece, wanted, temperature, use_reentrant=False))
            else:
                parts.append(self._score_chunk(piece, wanted, temperature))
        return torch.cat([logp for logp, _ in parts]), torch.cat([entropy for _, entropy in parts])

    def _score_chunk(self, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logits = self.logits(hidden)
        if temperature != 1.0:
            logits = logits / temperature
        logp, entropy = _SelectedLogprob.apply(logits, targets)
        return logp, entropy


class _SelectedLogprob(torch.autograd.Function):
    """log softmax(logits)[target] and the entropy, keeping one tensor of the size of the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        top = logits.amax(-1, keepdim=True)
        weights = (logits - top).exp_()
        total = weights.sum(-1, keepdim=True)
        log_total = top + total.log()
        logp = (logits.gather(-1, targets.unsqueeze(-1)) - log_total).squeeze(-1)
        mean_logit = torch.bmm(weights.unsqueeze(1), logits.unsqueeze(2)).flatten() / total.squeeze(-1)
        entropy = log_total.squeeze(-1) - mean_logit
        ctx.save_for_backward(weights, total, targets)
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weights, total, targets = ctx.saved_tensors
        gradient = gradients[0].unsqueeze(-1)
        result = weights * (-gradient / total)
        result.scatter_add_(-1, targets.unsqueeze(-1), gradient)
        return result, None
