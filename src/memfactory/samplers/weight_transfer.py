"""Two ways from a learner's tensors to `vllm serve`: a folder that both see, or vLLM's own GPU transfer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from memfactory.core.errors import BadInput, ServiceError
from memfactory.core.files import new_folder
from memfactory.core.ranks import Ranks

if TYPE_CHECKING:
    import torch

    from memfactory.samplers.base import AdapterFiles
    from memfactory.samplers.vllm_client import VllmClient

Transfer = Literal["folder", "nccl", "ipc"]

#: Bytes of tensors that are held, beside the learner's own, while weights are handed over.
_CHUNK = 2 * 2**30


class WeightFolder:
    """Writes each version to a folder of its own, of which the newest stays: a restarted server needs it."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self._folder = folder
        self._dtype = dtype
        self._newest: Path | None = None

    def write(self, tensors: Iterable[tuple[str, torch.Tensor]], version: str) -> Path:
        """Write all tensors as safetensors files; the folder appears when it is complete. Raises `DiskError`."""
        import torch
        from safetensors.torch import save_file

        path = self._folder / f"policy-{version}"
        with new_folder(path) as partial:
            for number, chunk in enumerate(chunks(_on(tensors, "cpu", getattr(torch, self._dtype)))):
                save_file(dict(chunk), partial / f"model-{number:05d}.safetensors")
        return path

    def write_adapter(self, adapter: AdapterFiles, version: str) -> Path:
        """Write adapters alone, as peft does. Raises `DiskError`."""
        path = self._folder / f"adapter-{version}"
        with new_folder(path) as partial:
            adapter.write(partial)
        return path

    def keep_only(self, path: Path) -> None:
        """Delete the version before, once every server has the new one."""
        if self._newest is not None and self._newest != path:
            shutil.rmtree(self._newest, ignore_errors=True)
        self._newest = path


def _on(
    tensors: Iterable[tuple[str, torch.Tensor]], device: Any, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of their own, in the type the servers hold: half the bytes for bfloat16."""
    for name, tensor in tensors:
        copy = tensor.detach().to(device=device, dtype=dtype).contiguous()
        # Tied or sliced weights share memory, which a file cannot express.
        yield name, copy.clone() if copy.data_ptr() == tensor.data_ptr() else copy


def chunks(
    tensors: Iterable[tuple[str, torch.Tensor]], size: int = _CHUNK
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Tensors in their order, cut into lists of at most `size` bytes (or of one tensor that is larger)."""
    held: list[tuple[str, torch.Tensor]] = []
    bytes_held = 0
    for name, tensor in tensors:
        if held and bytes_held + tensor.nbytes > size:
            yield held
            held, bytes_held = [], 0
        held.append((name, tensor))
        bytes_held += tensor.nbytes
    if held:
        yield held


class Engine(Protocol):
    """The trainer's half of one vLLM weight transfer (`vllm.distributed.weight_transfer`)."""

    source: Any

    def send_weights(self) -> None:
        """Send what `source` yields now."""
        ...


#: Makes the trainer's half for one server: (client, source) -> engine, after the handshake.
OpenEngine = Callable[["VllmClient", Any], Engine]


class GpuTransfer:
    """Sends weights to every server by NCCL or CUDA IPC. Not run on a GPU.

    vLLM allows any number of updates between the start and the end of one: tensors are sent in chunks, so that never
    more than one chunk is held beside the learner's own. All ranks call `send`: gathering sharded weights takes all.
    """

    def __init__(
        self, kind: Literal["nccl", "ipc"], dtype: str, ranks: Ranks, open_engine: OpenEngine
    ) -> None:
        self._kind = kind
        self._dtype = dtype
        self._ranks = ranks
        self._open = open_engine
        #: url -> the name its weights got last, and the engine. Another name: the server was restarted.
        self._engines: dict[str, tuple[str, Engine]] = {}

    def send(
        self, tensors: Iterable[tuple[str, torch.Tensor]], clients: Sequence[VllmClient], version: str
    ) -> None:
        """Send all tensors to all servers, which call their weights `version` then. Raises `ServiceError`."""
        import torch

        engines = [self._engine(client) for client in clients]
        device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
        try:
            if self._ranks.first:
                for client in clients:
                    client.start_update()
            for chunk in chunks(_on(tensors, device, getattr(torch, self._dtype))):
                for engine in engines:
                    engine.source = chunk_source(chunk)
                    engine.send_weights()
            if self._ranks.first:
                for client in clients:
                    client.finish_update()
                    client.name_weights(version)
        except Exception as error:
            self._engines.clear()  # a transfer that broke off cannot be used again
            if isinstance(error, ServiceError | BadInput):
                raise
            line = " ".join(str(error).split()) or type(error).__name__
            raise ServiceError(f"weights cannot be sent by {self._kind}: {line[:300]}") from error
        self._engines = {
            client.url: (version, engine) for client, engine in zip(clients, engines, strict=True)
        }

    def _engine(self, client: VllmClient) -> Engine:
        known = self._engines.get(client.url)
        fresh = self._ranks.broadcast(known is None or client.weights_name() != known[0])
        return self._open(client, chunk_source([])) if fresh or known is None else known[1]


def chunk_source(chunk: Sequence[tuple[str, torch.Tensor]]) -> Any:
    """A list of tensors as the `WeightSource` that vLLM's engines read."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class Chunk(WeightSource):  # type: ignore[misc]
        """Full tensors that are at hand."""

        def metadata(self) -> list[Any]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in chunk]

        def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
            return iter(chunk)

    return Chunk()


def open_gpu_engine(kind: Literal["nccl", "ipc"], ranks: Ranks, address: str | None) -> OpenEngine:
    """How to meet a server: by NCCL at `address` (None: this machine's name) and a free port, or by CUDA IPC."""

    def open_engine(client: VllmClient, source: Any) -> Engine:
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        from memfactory.samplers.server_process import free_port

        info: Any
        if kind == "nccl":
            import socket

            from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

            info = NCCLTrainerInitInfo(
                rank=ranks.rank,
                master_address=address or socket.gethostbyname(socket.gethostname()),
                master_port=ranks.broadcast(free_port()),
                world_size=1 + (client.world_size() if ranks.first else 0),
            )
        else:
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            info = IPCTrainerInitInfo(rank=ranks.rank, packed=True)
        engine: Engine = WeightTransferTrainerFactory.trainer_init(
            info, client=_update_client(client), source=source
        )
        return engine

    return open_engine


def _update_client(client: VllmClient) -> Any:
    """vLLM's own HTTP client, whose updates are parts of one: `GpuTransfer` starts and ends it."""
    from vllm.distributed.weight_transfer.clients import HTTPVLLMWeightSyncClient

    class PartOfUpdate(HTTPVLLMWeightSyncClient):  # type: ignore[misc]
        """Sends a part, by the connection that has the server's key."""

        def _post(self, path: str, json: dict[str, Any] | None = None) -> None:
            client.transfer(path, json)

        def start_weight_update(self) -> None:
            """The update has been started."""

        def finish_weight_update(self, weight_version: str | None = None) -> None:
            """More parts may follow."""

    return PartOfUpdate(client.url)
