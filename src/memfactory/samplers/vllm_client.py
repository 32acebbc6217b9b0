"""How to talk to one `vllm serve`: its token-in-token-out endpoint, and the endpoints of its developer mode.

`/inference/v1/generate` takes token ids and tells token ids, log-probabilities and the version of the weights that
drew each token: more than the OpenAI endpoints do, and nothing is detokenised. Weights go through
`/collective_rpc`, which calls `vllm_plugin.PolicyWeights` on every worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from memfactory.core.errors import BadInput, ServiceError, TaskError
from memfactory.core.types import Completion, FinishReason, SamplingRequest
from memfactory.samplers.router import ServerFailed
from memfactory.samplers.vllm_draw import LOGPROBS_MODE

#: What a server must be started with, for messages.
FLAGS = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --generation-config vllm "
    f"--logprobs-mode {LOGPROBS_MODE} --logits-processors memfactory.samplers.vllm_plugin:SeededDraw "
    "--worker-extension-cls memfactory.samplers.vllm_plugin.PolicyWeights"
)
#: What else it must be started with, if it is to take adapters.
ADAPTER_FLAGS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, --enable-lora, --max-lora-rank"
#: Seconds for a question that costs the server nothing.
_SHORT = 10.0


@dataclass(frozen=True)
class ServerFacts:
    """What a server says about itself."""

    vocabulary: int
    max_model_len: int
    device: str
    dtype: str = ""
    adapter_rank: int = 0


class VllmClient:
    """One server. Blocking methods use a connection of their own, `complete` one for each event loop."""

    def __init__(self, url: str, timeout_s: float, api_key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._timeout_s = timeout_s
        # A proxy that the environment names must not stand between this machine and itself.
        host = urlsplit(self.url).hostname or ""
        self._use_proxy = host not in ("localhost", "::1") and not host.startswith("127.")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: Any = None
        self._blocking: Any = None

    async def complete(
        self,
        request: SamplingRequest,
        eos_ids: Sequence[int],
        draw: Sequence[float],
        adapter: str | None = None,
    ) -> tuple[Completion, str]:
        """Sample once. Returns the completion and the name of the weights that drew all of its tokens.

        `adapter` is the name of the one to sample with. Raises `TaskError` for a request that the server refuses,
        `ServerFailed` for everything else that goes wrong.
        """
        import httpx

        body: dict[str, Any] = {
            "token_ids": list(request.prompt_ids),
            "sampling_params": {
                # Our logits processor draws; vLLM is left with one token to choose (`vllm_engine`).
                "temperature": 0.0,
                "max_tokens": request.params.max_tokens,
                "stop_token_ids": list(eos_ids),
                "logprobs": 0,
                "detokenize": False,
                "extra_args": {"draw": list(draw)},
            },
        }
        if adapter is not None:
            body["model"] = adapter
        try:
            reply = await self._client().post(f"{self.url}/inference/v1/generate", json=body)
        except httpx.TimeoutException as error:
            raise ServerFailed(f"{self.url} gave no answer within {self._timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise ServerFailed(f"{self.url} is gone ({_words(error)})") from error
        if reply.status_code in (400, 413, 422):
            raise TaskError(f"{request.label or 'request'}: {self.url} refused it: {_detail(reply)}")
        if reply.status_code != 200:
            raise ServerFailed(f"{self.url} answered {reply.status_code}: {_detail(reply)}")
        return self._completion(reply)

    def _completion(self, reply: Any) -> tuple[Completion, str]:
        try:
            choice = reply.json()["choices"][0]
            ids = tuple(int(i) for i in choice["token_ids"] or ())
            content = (choice["logprobs"] or {}).get("content") or ()
            logprobs = tuple(float(entry["logprob"]) for entry in content)
            spans = [str(span["version"]) for span in choice["weight_versions"] or ()]
            reason = choice["finish_reason"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ServerFailed(f"{self.url} gave no completion: {_words(error)}") from error
        if len(ids) != len(logprobs) or len(set(spans)) != 1:
            raise ServerFailed(
                f"{self.url} gave {len(ids)} tokens, {len(logprobs)} log-probabilities and weights {spans}"
            )
        if reason not in ("stop", "length"):  # aborted: the server is being shut down
            raise ServerFailed(f"{self.url} ended a request with '{reason}'")
        finish: FinishReason = "stop" if reason == "stop" else "length"
        return Completion(ids, logprobs, finish), spans[0]

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._http is None:
            import httpx

            # The rollouts in flight are the limit: the server queues what it cannot run yet.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            timeout = httpx.Timeout(self._timeout_s, connect=min(30.0, self._timeout_s), pool=None)
            self._loop = loop
            self._http = httpx.AsyncClient(
                headers=self._headers, limits=limits, timeout=timeout, trust_env=self._use_proxy
            )
        return self._http

    def _blocking_client(self) -> Any:
        if self._blocking is None:
            import httpx

            self._blocking = httpx.Client(headers=self._headers, trust_env=self._use_proxy)
        return self._blocking

    def close(self) -> None:
        """Forget the connections; idempotent."""
        if self._blocking is not None:
            self._blocking.close()
        self._blocking = self._http = self._loop = None

    # What follows blocks; it is called between rollouts, or from a server's own thread.

    def healthy(self) -> bool:
        """Whether the server answers and its engine lives."""
        import httpx

        try:
            reply = self._blocking_client().get(f"{self.url}/health", timeout=_SHORT)
        except httpx.HTTPError:
            return False
        return bool(reply.status_code == 200)

    def wait_healthy(self, seconds: float, alive: Callable[[], str | None] = lambda: None) -> None:
        """Wait until the server answers.

        `alive` says why it never will (None: it may). Raises `ServiceError` then, or when the time is over.
        """
        end = time.monotonic() + seconds
        while not self.healthy():
            dead = alive()
            if dead is not None:
                raise ServiceError(dead)
            if time.monotonic() > end:
                raise ServiceError(f"{self.url} does not answer after {seconds:g} s of waiting")
            time.sleep(0.1)

    def describe(self) -> ServerFacts:
        """Facts about the server. Raises `BadInput` when it was not started as it must be."""
        found = self._rpc("memfactory_describe")
        if not found or not all(isinstance(facts, dict) for facts in found):
            raise BadInput(f"{self.url} has no workers that take weights; start it with: {FLAGS}")
        facts = found[0]
        if not facts.get("draw") or facts.get("logprobs") != LOGPROBS_MODE:
            raise BadInput(f"{self.url} does not draw as this run does; start it with: {FLAGS}")
        return ServerFacts(
            int(facts["vocabulary"]),
            int(facts["max_model_len"]),
            str(facts["device"]),
            str(facts.get("dtype", "")),
            int(facts.get("adapter_rank", 0)),
        )

    def load_folder(self, folder: str, seconds: float) -> None:
        """Let all workers load the weights in a folder. Raises `ServiceError`."""
        self._rpc("memfactory_load", [folder], seconds)

    def load_adapter(self, name: str, folder: str, seconds: float) -> None:
        """Let the server load the adapter in a folder, and forget those of this run that it had before.

        `name` (run, `-`, version) must be new: vLLM never reads an adapter again whose name it knows. Raises
        `ServiceError`.
        """
        run = name.partition("-")[0]
        flags = f"{FLAGS}, and {ADAPTER_FLAGS}"
        loaded = {"lora_name": name, "lora_path": folder}
        self._reply("POST", "v1/load_lora_adapter", loaded, seconds, flags)  # the reply is a word, not JSON
        for card in self._request("GET", "v1/models").get("data", []):
            before = str(card["id"])
            if before.startswith(f"{run}-") and before != name:
                self._reply("POST", "v1/unload_lora_adapter", {"lora_name": before}, flags=flags)

    def repack(self, seconds: float) -> None:
        """Let all workers do what a change of weights asks for afterwards. Raises `ServiceError`."""
        self._rpc("memfactory_repack", [], seconds)

    def start_update(self) -> None:
        """Let all workers expect weights by vLLM's own transfer. Raises `ServiceError`."""
        self._post("start_weight_update")

    def finish_update(self) -> None:
        """Let all workers use the weights that came. Raises `ServiceError`."""
        self._post("finish_weight_update", seconds=600.0)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache. Raises `ServiceError` when the server did not."""
        if not self._post("reset_prefix_cache").get("success"):
            raise ServiceError(f"{self.url} did not reset its prefix cache: stale prefixes would be used")

    def name_weights(self, name: str) -> None:
        """Tell the server what to call its weights from now on. Raises `ServiceError`."""
        self._post("update_weight_version", {"new_version": name})

    def weights_name(self) -> str:
        """What the server calls its weights. Raises `ServiceError`."""
        return str(self._request("GET", "weight_info").get("weight_version"))

    def world_size(self) -> int:
        """Workers of this server (tensor x pipeline x data parallel). Raises `ServiceError`."""
        return int(self._request("GET", "get_world_size")["world_size"])

    def _rpc(self, method: str, arguments: Sequence[str] = (), seconds: float = 60.0) -> list[Any]:
        body = {"method": method, "args": list(arguments), "timeout": seconds}
        results: list[Any] = self._post("collective_rpc", body, seconds).get("results", [])
        return results

    def _post(self, path: str, body: Any = None, seconds: float = 60.0) -> dict[str, Any]:
        return self._request("POST", path, body, seconds)

    def _request(self, method: str, path: str, body: Any = None, seconds: float = 60.0) -> dict[str, Any]:
        reply = self._reply(method, path, body, seconds)
        try:
            value = reply.json() if reply.content else {}
        except ValueError as error:
            raise ServiceError(f"{self.url}/{path} answered with what is not JSON") from error
        return value if isinstance(value, dict) else {}

    def _reply(
        self, method: str, path: str, body: Any = None, seconds: float = 60.0, flags: str = FLAGS
    ) -> Any:
        """A successful answer. Raises `BadInput`, naming `flags`, when the server has no such endpoint."""
        import httpx

        try:
            reply = self._blocking_client().request(
                method, f"{self.url}/{path}", json=body, timeout=seconds + _SHORT
            )
        except httpx.HTTPError as error:
            raise ServiceError(f"{self.url}/{path} failed: {_words(error)}") from error
        if reply.status_code == 404:
            raise BadInput(f"{self.url} has no /{path}; start it with: {flags}")
        if reply.status_code != 200:
            raise ServiceError(f"{self.url}/{path} answered {reply.status_code}: {_detail(reply)}")
        return reply


def _detail(reply: Any) -> str:
    """The line of an error reply that says what is wrong."""
    try:
        value = reply.json()
        error = value.get("error", value)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = reply.text
    return " ".join(str(text).split())[:300]


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
