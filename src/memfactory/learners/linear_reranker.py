"""RMM's reranker: residual linear maps of frozen embeddings that learn by REINFORCE from what answers cite.

It is a module of the agent (it takes embeddings and ids and returns ids) and a learner of its own (it takes rollouts),
because the weights that rank are the ones that learn: in training after every step, and with `online` while it serves.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy

from memfactory.core.bounds import Bounds, Positive
from memfactory.core.chat import Models
from memfactory.core.errors import BadInput
from memfactory.core.files import write_bytes
from memfactory.core.registry import register
from memfactory.core.seeding import derive_seed
from memfactory.core.types import Rollout
from memfactory.memory.bank import MemoryBank
from memfactory.memory.item import MemoryItem, Vector
from memfactory.modules.rerankers import Draw, Ranking

if TYPE_CHECKING:
    from torch import Tensor

STATE = "reranker.pt"
STATE_FORMAT = 1
#: Where an agent keeps the record of a rollout's draw in `Outcome.info`, and the ids that its answer cites.
DRAW, CITED = "draw", "used"


@dataclass(frozen=True)
class LinearRerankerConfig:
    """Fields of `linear_reinforce`, as in the paper (K and M are the agent's `top_k` and `top_m`).

    `tau` is the temperature of the draws, `baseline` is what a cited memory's reward of +1, and an uncited one's of -1,
    is compared with. `credit` is `item` (each memory is paid for itself) or `set` (for all that were drawn after it
    too: an unbiased gradient). `optimizer` is adam or sgd. With `online` it also learns from every answer it serves,
    and then draws there, too. `path` is a folder with a state to begin with: `runs/rmm/final/components/reranker`.
    """

    tau: Positive = 0.5
    lr: Annotated[float, Bounds(above=0, high=1000)] = 1e-3
    baseline: Annotated[float, Bounds(-1, 1)] = 0.5
    credit: Literal["item", "set"] = "item"
    optimizer: Literal["adam", "sgd"] = "adam"
    online: bool = False
    path: str | None = None


@register("module", "linear_reinforce", config=LinearRerankerConfig, source="RMM, arXiv 2503.08026")
class LinearReranker:
    """Scores (q + W_q q) . (m + W_m m); draws by Gumbel-top-M while it learns, else takes the best M.

    The maps begin at zero, so an untrained one keeps the order of retrieval by embedding.
    """

    needs_vectors = True
    asks_model = False

    def __init__(
        self,
        tau: float = 0.5,
        lr: float = 1e-3,
        baseline: float = 0.5,
        credit: Literal["item", "set"] = "item",
        optimizer: Literal["adam", "sgd"] = "adam",
        online: bool = False,
        path: str | None = None,
    ) -> None:
        """Raises `BadInput` for a `path` without a state."""
        self.tau, self.lr, self.baseline = tau, lr, baseline
        self.credit: Literal["item", "set"] = credit
        self.optimizer_kind = optimizer
        self.online = online
        self.updates = 0
        self.embedder = ""  # of the vectors that the maps learn on; not known before the first bank
        self._maps: tuple[Tensor, Tensor] | None = None
        self._optimizer: Any = None
        self._origin = "the reranker"
        if path is not None:
            self.load_state(Path(path))

    def check(self, bank: MemoryBank) -> None:
        """The maps are of one embedder's vectors; another's of the same dimension mean nothing to them."""
        if self.embedder and bank.embedder != self.embedder:
            raise BadInput(
                f"{self._origin} was trained on vectors of embedder '{self.embedder}', the bank's are of "
                f"'{bank.embedder}'; use the embedder that it was trained with, or remove its file to let it begin anew"
            )
        self.embedder = bank.embedder

    async def rerank(
        self,
        question: str,
        vector: Vector | None,
        candidates: Sequence[MemoryItem],
        m: int,
        models: Models,
        role: str,
        max_tokens: int,
    ) -> Ranking:
        """The `m` drawn, or best, candidates. Raises `BadInput` when question or candidates have no embedding.

        It draws where the rollout draws (`Models.seed`), and while it serves online; both are repeatable.
        """
        if not candidates:
            return Ranking()
        vectors = [item.embedding for item in candidates if item.embedding is not None]
        if vector is None or len(vectors) < len(candidates):
            raise BadInput("reranker 'linear_reinforce' needs embeddings; use retriever.method=embedding")
        query = numpy.asarray(vector, numpy.float32)
        memories = numpy.stack(vectors)
        seed = models.seed("reranker")
        if seed is None and self.online:
            seed = derive_seed("reranker", self.updates, question)
        order = self._rank(query, memories, m, seed)
        ids = tuple(item.id for item in candidates)
        return Ranking(tuple(candidates[place] for place in order), draw=Draw(query, memories, ids, order))

    def feedback(self, draw: Draw, cited: Collection[str]) -> None:
        """One online step from one answer."""
        self._learn([(draw, cited)])

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """One step from all draws of the rollouts: the mean of their REINFORCE losses.

        Figures: `reranker/loss`, `reranker/grad_norm`, `reranker/cited` (the share of memories shown that were
        cited), `reranker/norm` (Frobenius norm of both maps), `reranker/draws`.
        """
        drawn = []
        for rollout in rollouts:
            if rollout.error is None and rollout.outcome is not None:
                draw = rollout.outcome.info.get(DRAW)
                if isinstance(draw, Draw) and draw.order:
                    drawn.append((draw, rollout.outcome.info[CITED]))
        return self._learn(drawn) if drawn else {"reranker/draws": 0.0, "reranker/grad_norm": 0.0}

    def save_state(self, folder: Path) -> None:
        """Write maps and optimizer as one file, replaced at once."""
        import torch

        state: dict[str, Any] = {"format": STATE_FORMAT, "updates": self.updates, "maps": None}
        state["embedder"] = self.embedder
        if self._maps is not None:
            state |= {"maps": [w.detach() for w in self._maps], "optimizer": self._optimizer.state_dict()}
            state["optimizer_kind"] = self.optimizer_kind
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(folder / STATE, _sealed(buffer.getvalue()))

    def load_state(self, folder: Path) -> None:
        """Go on from `save_state`; its learning rate and so on stay those of this reranker."""
        import torch

        path = folder / STATE
        try:
            state = torch.load(io.BytesIO(_unsealed(path.read_bytes())), weights_only=True)
            if state["format"] != STATE_FORMAT:
                raise ValueError(f"format {state['format']}")
            maps, updates = state["maps"], int(state["updates"])
            embedder = str(state.get("embedder", ""))
            if maps is not None and not all(bool(torch.isfinite(values).all()) for values in maps):
                raise ValueError("its weights hold NaN or infinity")
        except FileNotFoundError:
            raise BadInput(f"{folder}: holds no trained reranker ({STATE})") from None
        except Exception as error:  # whatever a damaged file makes torch's unpickler raise
            line = " ".join(str(error).split())[:160]
            raise BadInput(
                f"{path}: not a readable state of a reranker ({line}); take another copy, or leave it out"
            ) from error
        self._maps, self.updates, self._origin = None, updates, f"{path}: the reranker"
        self.embedder = embedder if maps is not None else ""
        if maps is not None:
            self._begin(len(maps[0]))
            assert self._maps is not None
            with torch.no_grad():
                for mine, theirs in zip(self._maps, maps, strict=True):
                    mine.copy_(theirs)
            if state["optimizer_kind"] == self.optimizer_kind:
                self._optimizer.load_state_dict(state["optimizer"])
                for group in self._optimizer.param_groups:
                    group["lr"] = self.lr

    def _begin(self, dim: int) -> None:
        import torch

        self._maps = (torch.zeros(dim, dim, requires_grad=True), torch.zeros(dim, dim, requires_grad=True))
        kind = torch.optim.Adam if self.optimizer_kind == "adam" else torch.optim.SGD
        self._optimizer = kind(self._maps, lr=self.lr)

    def _logits(self, query: numpy.ndarray, memories: numpy.ndarray) -> Tensor:
        import torch

        from memfactory.algorithms.plackett_luce import residual_logits

        if self._maps is None:
            self._begin(len(query))
        assert self._maps is not None
        if len(query) != len(self._maps[0]):
            raise BadInput(
                f"{self._origin} was trained on embeddings of {len(self._maps[0])} numbers, these have {len(query)}; "
                "use the embedder that it was trained with, or remove its file to let it begin anew"
            )
        return residual_logits(torch.tensor(query), torch.tensor(memories), *self._maps, self.tau)

    def _rank(
        self, query: numpy.ndarray, memories: numpy.ndarray, m: int, seed: int | None
    ) -> tuple[int, ...]:
        """Places of the drawn (with a seed) or best memories."""
        import torch

        from memfactory.algorithms.plackett_luce import draw_order, top_order

        with torch.no_grad():
            logits = self._logits(query, memories)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        order = top_order(logits, m) if generator is None else draw_order(logits, m, generator)
        return tuple(order.tolist())

    def _learn(self, drawn: Sequence[tuple[Draw, Collection[str]]]) -> dict[str, float]:
        import torch

        from memfactory.algorithms.plackett_luce import reinforce_loss

        losses, cited_shares = [], []
        for draw, cited in drawn:
            rewards = torch.tensor([1.0 if draw.ids[place] in cited else -1.0 for place in draw.order])
            logits = self._logits(draw.query, draw.memories)
            order = torch.tensor(draw.order)
            losses.append(reinforce_loss(logits, order, rewards, self.baseline, self.credit))
            cited_shares.append((float(rewards.mean()) + 1) / 2)
        assert self._maps is not None
        loss = torch.stack(losses).mean()
        self._optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([w.grad for w in self._maps if w.grad is not None])
        self._optimizer.step()
        self.updates += 1
        return {
            "reranker/loss": loss.item(),
            "reranker/grad_norm": float(norm),
            "reranker/cited": sum(cited_shares) / len(cited_shares),
            "reranker/norm": float(sum(w.detach().square().sum() for w in self._maps) ** 0.5),
            "reranker/draws": float(len(drawn)),
        }


_SEAL = b"\n#blake2b "  # before the checksum at the end of a state file; those of before have none


def _sealed(content: bytes) -> bytes:
    return content + _SEAL + hashlib.blake2b(content, digest_size=8).hexdigest().encode()


def _unsealed(data: bytes) -> bytes:
    """The content of a state file. Raises `ValueError` when it is another than what was written."""
    content, seal, check = data.rpartition(_SEAL)
    if not seal:
        return data
    if hashlib.blake2b(content, digest_size=8).hexdigest().encode() != check:
        raise ValueError("its checksum is another than when it was written")
    return content
