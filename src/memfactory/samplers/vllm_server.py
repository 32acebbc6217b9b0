"""The sampler `vllm_server`: one or more `vllm serve` processes, the user's or the run's own."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from memfactory.core.address import check_address, key_in
from memfactory.core.bounds import AtLeastOne, Bounds, Form, PartOfGpu, Positive, Seconds
from memfactory.core.errors import ServiceError
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.registry import register
from memfactory.core.types import Completion, SamplingRequest
from memfactory.samplers.base import SHARED, AdapterFiles, Layout, Sampler
from memfactory.samplers.checks import check_request
from memfactory.samplers.checksums import Held
from memfactory.samplers.managed_server import (
    HeldWeights,
    ManagedServer,
    require_adapters,
    require_context,
    require_dtype,
)
from memfactory.samplers.router import Router
from memfactory.samplers.serve_command import serve_arguments, serve_environment
from memfactory.samplers.server_process import ServerProcess
from memfactory.samplers.vllm_adapters import slot_rank, wants_adapters
from memfactory.samplers.vllm_client import UNIX, VllmClient
from memfactory.samplers.weight_transfer import GpuTransfer, Transfer, WeightFolder, open_gpu_engine

if TYPE_CHECKING:
    import torch

    from memfactory.models.text import Codec

#: Options of `vllm serve` that decide who may ask.
_OF_RUN = (
    "--host",
    "--port",
    "--uds",
    "--api-key",
    "--root-path",
    "--ssl-keyfile",
    "--ssl-certfile",
    "--ssl-ca-certs",
)


@dataclass(frozen=True)
class VllmServerConfig:
    """Fields of `sampler: {type: vllm_server}`.

    Either `urls` names servers that the user started (docs/scaling.md has the command), or the run starts `servers`
    of its own and ends them. `devices` (GPU numbers) and `cores` (CPU numbers), one text for each server like `0,1`,
    say where each runs. Weights go through a folder (`transfer: folder`; `weights_dir` names one that servers on other
    machines see too) or by vLLM's own `nccl` or `ipc` (not run on a GPU). A server that does not answer within
    `timeout_s` or fails is waited for, at most `wait_s`; one of the run's own is restarted. `server_args` follow
    `vllm serve`. `adapter_sync` (with `transfer: folder`): under LoRA each sync hands over adapters alone (None: to
    the run's own servers, where the weights have 16 bits). The other
    fields are those of the sampler `vllm`.
    Servers of the run's own listen at Unix sockets that only its user can reach, with a key that only the run knows.
    """

    urls: tuple[Annotated[str, Form(r"(https?|unix)://\S+", "an address such as http://host:8000")], ...] = ()
    servers: Annotated[int, Bounds(0, 1024)] = 0
    devices: tuple[Annotated[str, Form(r"\d+(,\d+)*", "numbers of GPUs such as 0 or 0,1")], ...] = ()
    cores: tuple[
        Annotated[str, Form(r"\d+(-\d+)?(,\d+(-\d+)?)*", "numbers of cores such as 0,1 or 0-3")], ...
    ] = ()
    transfer: Transfer = "folder"
    weights_dir: str | None = None
    master_address: str | None = None
    timeout_s: Seconds = 600.0
    wait_s: Seconds = 600.0
    api_key_env: str = "VLLM_API_KEY"
    server_args: tuple[str, ...] = ()
    adapter_sync: bool | None = None
    kv_cache_gb: Positive = field(default=1.0, metadata=SHARED)
    gpu_memory_utilization: PartOfGpu = field(default=0.9, metadata=SHARED)
    max_num_seqs: AtLeastOne = 256
    max_num_batched_tokens: AtLeastOne | None = None
    enforce_eager: bool | None = None
    prefix_caching: bool = True
    tensor_parallel_size: Annotated[int, Bounds(1, 1024)] = 1

    def __post_init__(self) -> None:
        if bool(self.urls) == bool(self.servers):
            raise ValueError("give either urls of running servers, or servers (a number) to start")
        for url in self.urls:
            if not url.startswith(f"{UNIX}/"):
                check_address(url, "urls")
        for argument in self.server_args:
            if argument.partition("=")[0] in _OF_RUN:
                raise ValueError(
                    f"server_args: {argument.partition('=')[0]} is set by the run: its servers are nobody else's"
                )
        for name, given in (("devices", self.devices), ("cores", self.cores)):
            if given and len(given) != self.servers:
                raise ValueError(f"{name} has {len(given)} entries for {self.servers} servers; one for each")
        for chosen in self.devices:
            gpus = chosen.split(",")
            if len(set(gpus)) < len(gpus) or len(gpus) != self.tensor_parallel_size:
                raise ValueError(
                    f"devices {chosen!r} are not tensor_parallel_size={self.tensor_parallel_size} different GPUs"
                )
        if self.adapter_sync and self.transfer != "folder":
            raise ValueError("adapter_sync goes through a folder; leave transfer out")


@register("sampler", "vllm_server", config=VllmServerConfig)
class VllmServerSampler:
    """Requests go to the server with the least to do, weights to all of them."""

    def __init__(
        self,
        urls: Sequence[str] = (),
        servers: int = 0,
        devices: Sequence[str] = (),
        cores: Sequence[str] = (),
        transfer: Transfer = "folder",
        weights_dir: str | None = None,
        master_address: str | None = None,
        timeout_s: float = 600.0,
        wait_s: float = 600.0,
        api_key_env: str = "VLLM_API_KEY",
        server_args: Sequence[str] = (),
        adapter_sync: bool | None = None,
        kv_cache_gb: float = 1.0,
        gpu_memory_utilization: float = 0.9,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int | None = None,
        enforce_eager: bool | None = None,
        prefix_caching: bool = True,
        tensor_parallel_size: int = 1,
        *,
        model_folder: Path,
        codec: Codec,
        max_model_len: int,
        dtype: str = "float32",
        seed: int = 0,
        trust_remote_code: bool = False,
        ranks: Ranks = ALONE,
        lora_rank: int = 0,
    ) -> None:
        """Start the servers, if they are to be the run's own, and wait until all of them answer.

        Rank 0 starts servers and sends weights; all ranks use them. `lora_rank` is that of the learner whose adapters
        will come (0: nobody's; then `adapter_sync` changes nothing). Raises `BadInput` for servers that were not
        started as they must be, `ServiceError` for those that do not answer.
        """
        self.max_model_len = max_model_len
        self.dtype = dtype
        self._ranks = ranks
        # Servers of others may have been started without a place for adapters.
        self.takes_adapters = wants_adapters(
            False if adapter_sync is None and (urls or transfer != "folder") else adapter_sync,
            dtype,
            lora_rank,
        )
        self._held = HeldWeights(adapters=self.takes_adapters)
        self._sent = 0
        self._nonce = ranks.broadcast(uuid.uuid4().hex[:8])
        self._own_folder: Path | None = None
        own_key = ranks.broadcast(secrets.token_urlsafe(32))
        processes: list[ServerProcess | None] = [None] * len(urls)
        if ranks.first and (servers or (transfer == "folder" and weights_dir is None)):
            self._own_folder = Path(tempfile.mkdtemp(prefix="memfactory-servers-"))
        if servers and self._own_folder is not None:
            arguments = serve_arguments(
                model_folder,
                dtype=dtype,
                max_model_len=max_model_len,
                seed=seed,
                trust_remote_code=trust_remote_code,
                on_gpu=_on_gpu(),
                kv_cache_gb=kv_cache_gb,
                gpu_memory_utilization=gpu_memory_utilization,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                enforce_eager=enforce_eager,
                prefix_caching=prefix_caching,
                tensor_parallel_size=tensor_parallel_size,
                transfer=transfer,
                adapter_rank=slot_rank(lora_rank) if self.takes_adapters else 0,
                more=server_args,
            )
            # The learner is to have as many threads as a server.
            threads = max(1, len(os.sched_getaffinity(0)) // (servers + 1))
            for number in range(servers):
                environment = serve_environment(
                    transfer=transfer,
                    threads=threads,
                    devices=devices[number] if devices else None,
                    key=own_key,
                    one_worker_on_cpu=tensor_parallel_size == 1 and not _on_gpu(),
                )
                where = cores[number] if cores else None
                processes.append(ServerProcess(number, arguments, environment, self._own_folder, where))
        urls = ranks.broadcast([p.url for p in processes if p is not None] or list(urls))
        if not ranks.first:
            processes = [None] * len(urls)
        key = own_key if servers else key_in(api_key_env)
        self._servers = [
            ManagedServer(
                VllmClient(url, timeout_s, key),
                process,
                self._held,
                eos_ids=sorted(codec.eos_ids),
                wait_s=wait_s,
                loads_weights=ranks.first,
            )
            for url, process in zip(urls, processes, strict=True)
        ]
        self._router = Router(self._servers)
        self._folder: WeightFolder | None = None
        self._gpu: GpuTransfer | None = None
        if transfer != "folder":
            self._gpu = GpuTransfer(transfer, dtype, ranks, open_gpu_engine(transfer, ranks, master_address))
        elif ranks.first:
            place = Path(weights_dir) if weights_dir else self._own_folder
            assert place is not None
            self._folder = WeightFolder(place.absolute(), dtype)
        try:
            facts = self._router.each(lambda number: self._servers[number].open())
            for server, found in zip(self._servers, facts, strict=True):
                require_context(server, found, max_model_len)
                require_dtype(server, found, dtype)
                if self.takes_adapters:
                    require_adapters(server, found, lora_rank)
        except BaseException:
            self.close()
            raise
        self._vocabulary = min(found.vocabulary for found in facts)

    @property
    def policy_version(self) -> int:
        """See `Sampler`."""
        return self._held.version

    async def sample(self, request: SamplingRequest) -> Completion:
        """Draw one completion; see `Sampler.sample`. Raises `TaskError` when the request does not fit."""
        return await self._sample(request, None)

    async def _sample(self, request: SamplingRequest, only: int | None) -> Completion:
        check_request(request, self.max_model_len, self._vocabulary)
        return await self._router.submit(request, only)

    def engines(self) -> list[Sampler]:
        """Each server as a sampler, for the parity check."""
        return [_OneServer(self, number) for number in range(len(self._servers))]

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Send full weights to all servers; those that are down are had back first.

        All ranks call it: iterating the tensors may take all of them. Raises `RuntimeError` while requests are
        running, `ServiceError` when a server cannot take them.
        """
        if self.takes_adapters:
            raise RuntimeError("these servers take adapters, not weights")
        name = self._next_name(version)
        if self._gpu is not None:
            self._held.name = None  # until they are sent, nothing is expected of a server that was restarted
            self._router.refresh()
            self._gpu.send(named_tensors, [server.client for server in self._servers], name)
            if self._ranks.first:
                self._router.each(lambda number: self._servers[number].client.forget_prefixes())
            self._held.name, self._held.version = name, version
        elif self._folder is not None:
            self._hand_out(self._folder.write(named_tensors, name), name, version)
        else:
            for _ in named_tensors:
                pass  # only to take part in gathering them
        self._all_have(name, version)

    def load_adapter(self, adapter: AdapterFiles, version: int) -> None:
        """Send adapters in place of those before to all servers, as `load_weights`; for `takes_adapters`."""
        name = self._next_name(version)
        if self._folder is not None:
            self._hand_out(self._folder.write_adapter(adapter, name), name, version)
        self._all_have(name, version)

    def held(self, layout: Layout, turn: int) -> list[Held]:
        """See `samplers.base.held_by`; only the rank that sends asks."""
        return self._held_by_all(layout, turn)

    def held_adapter(self, layout: Layout) -> list[Held]:
        """See `samplers.base.held_by`."""
        return self._held_by_all(layout, None)

    def _held_by_all(self, layout: Layout, turn: int | None) -> list[Held]:
        if not self._ranks.first:
            return []

        def ask(number: int) -> list[Held]:
            server = self._servers[number]
            try:
                return server.client.held(layout, turn)
            except ServiceError:
                server.recover()  # it may have died in between; then it gets the weights anew
                return server.client.held(layout, turn)

        return [held for of_server in self._router.each(ask) for held in of_server]

    def _next_name(self, version: int) -> str:
        if not self._router.idle:
            raise RuntimeError("weights cannot change while requests are running")
        # Never the same twice: the same version sent again must empty the servers' caches too.
        self._sent += 1
        return f"{self._nonce}-{version}.{self._sent}"

    def _hand_out(self, folder: Path, name: str, version: int) -> None:
        """Let all servers load a folder."""
        assert self._folder is not None
        self._held.folder, self._held.name, self._held.version = folder, name, version
        self._router.refresh()
        self._folder.keep_only(folder)

    def _all_have(self, name: str, version: int) -> None:
        self._ranks.barrier()
        if not self._ranks.first:
            self._held.name, self._held.version = name, version

    def figures(self) -> dict[str, float]:
        """`servers/retries` and `servers/recoveries`: how often requests were asked again, and servers had back."""
        return {
            "servers/retries": float(self._router.retries),
            "servers/recoveries": float(self._router.recoveries),
        }

    def close(self) -> None:
        """End the servers that are the run's own; idempotent."""
        for server in self._servers:
            server.close()
        self._router.close()
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)


class _OneServer:
    """One of the servers, as a sampler that only samples."""

    def __init__(self, whole: VllmServerSampler, number: int) -> None:
        self._whole = whole
        self._number = number
        self.max_model_len = whole.max_model_len

    @property
    def policy_version(self) -> int:
        """See `Sampler`."""
        return self._whole.policy_version

    async def sample(self, request: SamplingRequest) -> Completion:
        """Draw one completion on this server; see `Sampler.sample`."""
        return await self._whole._sample(request, self._number)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Not for one server alone."""
        raise RuntimeError("weights go to all servers together")

    def close(self) -> None:
        """The servers belong to the whole."""


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
