"""One vLLM server of a run: asked, checked for the weights it holds, and had back when it fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memfactory.core.errors import BadInput, ServiceError
from memfactory.core.types import Completion, SamplingRequest
from memfactory.samplers.router import ServerFailed
from memfactory.samplers.server_process import ServerProcess
from memfactory.samplers.vllm_client import ADAPTER_FLAGS, ServerFacts, VllmClient
from memfactory.samplers.vllm_draw import pack

#: Seconds that a server which lives gets to answer before it counts as hanging.
_PATIENCE = 60.0


@dataclass
class HeldWeights:
    """The weights that all servers must hold now. One object for a sampler and its servers.

    `name` is unique for run and version: a server that was restarted, or that another run has sent weights to, cannot
    have it. None: nothing was sent yet, and servers hold what they were started with. `folder` has the weights, or
    with `adapters` the adapters alone, which servers add to the weights that they were started with.
    """

    name: str | None = None
    version: int = 0
    folder: Path | None = None
    adapters: bool = False


class ManagedServer:
    """A server behind a URL; with `process` it is the run's own and is restarted when it dies."""

    def __init__(
        self,
        client: VllmClient,
        process: ServerProcess | None,
        held: HeldWeights,
        *,
        eos_ids: Sequence[int],
        wait_s: float,
        loads_weights: bool = True,
    ) -> None:
        """`loads_weights` is false on ranks that only use the server: they wait until another has loaded them."""
        self.name = client.url
        self.client = client
        self.process = process
        self._held = held
        self._eos_ids = list(eos_ids)
        self._wait_s = wait_s
        self._loads_weights = loads_weights

    async def complete(self, request: SamplingRequest) -> Completion:
        """See `router.Server`."""
        adapter = self._held.name if self._held.adapters else None
        completion, name = await self.client.complete(request, self._eos_ids, pack(request), adapter)
        if self._held.name is not None and name != self._held.name:
            raise ServerFailed(f"{self.name} drew with weights '{name}', not '{self._held.name}'")
        return replace(completion, policy_version=self._held.version)

    def open(self) -> ServerFacts:
        """Start the process, if there is one, and wait for the first answer; what the server says of itself."""
        if self.process is not None:
            self.process.start()
        self._wait()
        return self.client.describe()

    def recover(self) -> None:
        """See `router.Server`; also how a healthy server gets the newest weights.

        A server may die once more while it loads: that is one more try. Raises `ServiceError` after it.
        """
        try:
            self._recover()
        except ServiceError:
            if self.process is None or (self.process.ended() is None and self.client.healthy()):
                raise
            self._recover()

    def _recover(self) -> None:
        if self.process is not None and (self.process.ended() is not None or not self._answers()):
            self.process.start()
        self._wait()
        name, folder = self._held.name, self._held.folder
        if name is None or self.client.weights_name() == name:
            return
        if not self._loads_weights:
            self._wait_for(name)
        elif folder is None:
            raise ServiceError(
                f"{self.name} has lost its weights, and only a folder keeps them for such a case; run the same "
                "command again, with sampler.transfer=folder if it happens often"
            )
        else:
            if self._held.adapters:
                self.client.load_adapter(name, str(folder), self._wait_s)
            else:
                self.client.load_folder(str(folder), self._wait_s)
            self.client.forget_prefixes()
            self.client.name_weights(name)

    def close(self) -> None:
        """End the process, if it is the run's own; idempotent."""
        self.client.close()
        if self.process is not None:
            self.process.stop()

    def _wait(self) -> None:
        try:
            self.client.wait_healthy(self._wait_s, self.process.ended if self.process else lambda: None)
        except ServiceError as error:
            hint = "" if self.process is None else f" (log: {self.process.last_words()})"
            raise ServiceError(f"{error}{hint if 'ended' not in str(error) else ''}") from error

    def _answers(self) -> bool:
        """Whether it answers within a while: a busy machine is no reason to kill a server."""
        assert self.process is not None
        end = time.monotonic() + _PATIENCE
        while not self.client.healthy():
            if self.process.ended() is not None or time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _wait_for(self, name: str) -> None:
        end = time.monotonic() + self._wait_s
        while self.client.weights_name() != name:
            if time.monotonic() > end:
                raise ServiceError(f"{self.name} still has other weights after {self._wait_s:g} s of waiting")
            time.sleep(0.2)


def require_context(server: ManagedServer, facts: ServerFacts, wanted: int) -> None:
    """Raise `BadInput` when a server takes fewer tokens than the recipe."""
    if facts.max_model_len < wanted:
        raise BadInput(
            f"{server.name} takes {facts.max_model_len} tokens, the recipe {wanted}; lower model.max_model_len "
            "or start the server with a larger --max-model-len"
        )


def require_dtype(server: ManagedServer, facts: ServerFacts, wanted: str) -> None:
    """Raise `BadInput` when a server keeps weights in another type than the recipe's."""
    if facts.dtype and facts.dtype != wanted:
        raise BadInput(
            f"{server.name} computes in {facts.dtype}, the recipe in {wanted}; start it with --dtype {wanted}, or set "
            f"model.dtype={facts.dtype}"
        )


def require_adapters(server: ManagedServer, facts: ServerFacts, rank: int) -> None:
    """Raise `BadInput` when a server cannot take adapters of this rank."""
    if facts.adapter_rank < rank:
        raise BadInput(
            f"{server.name} takes adapters of rank {facts.adapter_rank} at most, and learner.lora_rank is {rank}; "
            f"start it with {ADAPTER_FLAGS}={rank} or more (docs/scaling.md), or leave sampler.adapter_sync out"
        )
    if facts.device != "cpu" and facts.dtype == "float32":
        raise BadInput(
            f"sampler.adapter_sync: {server.name} computes in float32; vLLM's kernels for adapters take 16 "
            "bits on a GPU; set model.dtype=bfloat16, or leave it out"
        )
