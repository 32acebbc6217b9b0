"""How to talk to one `vllm serve`: its token-in-token-out endpoint, and the endpoints of its developer mode.

`/inference/v1/generate` takes token ids and tells token ids, log-probabilities and the version of the weights that
drew each token: more than the OpenAI endpoints do, and nothing is detokenised. Weights go through
`/collective_rpc`, which calls `vllm_plugin.PolicyWeights` on every worker.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memfactory.core.address import address_of, masked
from memfactory.core.errors import BadInput, ServiceError, TaskError
from memfactory.core.http import Connection, HttpFailed, NoAnswerInTime, Reply
from memfactory.core.types import Completion, FinishReason, SamplingRequest
from memfactory.models.refusals import error_words, one_line
from memfactory.samplers.base import Layout
from memfactory.samplers.checksums import Held
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
#: How the address of a server at a Unix socket begins; its path follows.
UNIX = "unix://"
_KEY = "is the key the server's own (sampler.api_key_env names the variable)?"
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
    """One server. `complete` is for event loops, all other methods block."""

    def __init__(self, url: str, timeout_s: float, api_key: str | None = None) -> None:
        """`url` is http://, https:// or unix:// with the path of a socket. Raises `BadInput` for anything else."""
        self.url = masked(url).rstrip("/").removesuffix("/v1")
        self._timeout_s = timeout_s
        socket = url.removeprefix(UNIX) if url.startswith(UNIX) else None
        address = address_of("http://localhost" if socket else url, "sampler.urls")
        address = replace(address, url=address.url.removesuffix("/v1"))
        # A proxy that the environment names must not stand between this machine and itself.
        self._http = Connection(address, key=api_key, environment=not address.is_here, socket=socket)
        self._last_answer = -math.inf

    async def complete(
        self,
        request: SamplingRequest,
        eos_ids: Sequence[int],
        draw: Sequence[float],
        adapter: str | None = None,
    ) -> tuple[Completion, str]:
        """Sample once. Returns the completion and the name of the weights that drew all of its tokens.

        `adapter` is the name of the one to sample with. A server queues what it cannot run yet, so it has failed when
        it has not answered *anything* for `timeout_s`. Raises `TaskError` for a request that the server refuses,
        `ServiceError` when it refuses the key, `ServerFailed` for everything else that goes wrong.
        """
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
            reply = await self._http.request(
                "POST",
                "inference/v1/generate",
                body,
                seconds=self._timeout_s,
                longer=lambda: self._last_answer + self._timeout_s - time.monotonic(),
            )
        except NoAnswerInTime as error:
            raise ServerFailed(f"{self.url} {error}") from error
        except HttpFailed as error:
            raise ServerFailed(f"{self.url} is gone: it {error}") from error
        self._last_answer = time.monotonic()
        if reply.status in (400, 413, 422):
            raise TaskError(f"{request.label or 'request'}: {self.url} refused it: {_detail(reply)}")
        if reply.status in (401, 403):
            raise ServiceError(f"{self.url} answered {reply.status}: {_detail(reply)}; {_KEY}")
        if reply.status != 200:
            raise ServerFailed(f"{self.url} answered {reply.status}: {_detail(reply)}")
        return self._completion(reply)

    def _completion(self, reply: Reply) -> tuple[Completion, str]:
        try:
            choice = reply.json()["choices"][0]
            ids = tuple(_token(i) for i in choice["token_ids"] or ())
            content = (choice["logprobs"] or {}).get("content") or ()
            logprobs = tuple(_logprob(entry["logprob"]) for entry in content)
            spans = [str(span["version"]) for span in choice["weight_versions"] or ()]
            reason = choice["finish_reason"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            raise ServerFailed(f"{self.url} gave no completion: {one_line(str(error))}") from error
        if len(ids) != len(logprobs) or len(set(spans)) != 1:
            told = one_line(", ".join(spans[:3]))
            raise ServerFailed(
                f"{self.url} gave {len(ids)} tokens, {len(logprobs)} log-probabilities and weights [{told}]"
            )
        if reason not in ("stop", "length"):  # aborted: the server is being shut down
            raise ServerFailed(f"{self.url} ended a request with '{one_line(str(reason))}'")
        finish: FinishReason = "stop" if reason == "stop" else "length"
        return Completion(ids, logprobs, finish), spans[0]

    def close(self) -> None:
        """Forget the connections; idempotent."""
        self._http.close()

    # What follows blocks; it is called between rollouts, or from a server's own thread.

    def healthy(self) -> bool:
        """Whether the server answers and its engine lives."""
        try:
            return self._http.ask("GET", "health", seconds=_SHORT).status == 200
        except HttpFailed:
            return False

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
        try:
            return ServerFacts(
                int(facts["vocabulary"]),
                int(facts["max_model_len"]),
                str(facts["device"]),
                str(facts.get("dtype", "")),
                int(facts.get("adapter_rank", 0)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadInput(
                f"{self.url} describes itself in another way than this version of memfactory: {one_line(repr(error))}"
            ) from None

    def load_folder(self, folder: str, seconds: float) -> None:
        """Let all workers load the weights in a folder. Raises `ServiceError`."""
        self._rpc("memfactory_load", [folder], seconds)

    def held(self, layout: Layout, turn: int | None) -> list[Held]:
        """What each worker holds of a layout; `turn` None: of the adapter. Raises `ServiceError`, `BadInput`."""
        method = "memfactory_held_adapter" if turn is None else "memfactory_held"
        arguments = [json.dumps(layout)] + ([] if turn is None else [str(turn)])
        try:
            return [
                Held(
                    digests={name: int(value) for name, value in found["digests"].items()},
                    packed=found.get("packed", ()),
                    empty=found.get("empty", ()),
                    unread=found.get("unread", ()),
                    where=self.url,
                )
                for found in self._rpc(method, arguments, 600.0)
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"{self.url} does not tell what weights it holds; start it with: {FLAGS}"
            ) from error

    def load_adapter(self, name: str, folder: str, seconds: float) -> None:
        """Let the server load the adapter in a folder, and forget those of this run that it had before.

        `name` (run, `-`, version) must be new: vLLM never reads an adapter again whose name it knows. Raises
        `ServiceError`.
        """
        run = name.partition("-")[0]
        flags = f"{FLAGS}, and {ADAPTER_FLAGS}"
        loaded = {"lora_name": name, "lora_path": folder}
        self._reply("POST", "v1/load_lora_adapter", loaded, seconds, flags)  # the reply is a word, not JSON
        cards = self._request("GET", "v1/models").get("data", [])
        for card in cards if isinstance(cards, list) else []:
            before = str(card.get("id")) if isinstance(card, dict) else ""
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
        size = self._request("GET", "get_world_size").get("world_size")
        if type(size) is not int or not 0 < size < 10**6:
            raise ServiceError(f"{self.url} does not say how many workers it has")
        return size

    def transfer(self, path: str, body: Any) -> None:
        """A step of vLLM's own transfer of weights. Raises `ServiceError`."""
        self._reply("POST", path, body, 300.0)

    def _rpc(self, method: str, arguments: Sequence[str] = (), seconds: float = 60.0) -> list[Any]:
        body = {"method": method, "args": list(arguments), "timeout": seconds}
        results = self._post("collective_rpc", body, seconds).get("results", [])
        return results if isinstance(results, list) else []

    def _post(self, path: str, body: Any = None, seconds: float = 60.0) -> dict[str, Any]:
        return self._request("POST", path, body, seconds)

    def _request(self, method: str, path: str, body: Any = None, seconds: float = 60.0) -> dict[str, Any]:
        reply = self._reply(method, path, body, seconds)
        try:
            value = reply.json() if reply.content else {}
        except ValueError as error:
            raise ServiceError(f"{self.url}/{path} answered with {error}") from error
        return value if isinstance(value, dict) else {}

    def _reply(
        self, method: str, path: str, body: Any = None, seconds: float = 60.0, flags: str = FLAGS
    ) -> Reply:
        """A successful answer. Raises `BadInput`, naming `flags`, when the server has no such endpoint."""
        try:
            reply = self._http.ask(method, path, body, seconds=seconds + _SHORT)
        except HttpFailed as error:
            raise ServiceError(f"{self.url}/{path} failed: it {error}") from error
        if reply.status == 404:
            raise BadInput(f"{self.url} has no /{path}; start it with: {flags}")
        if reply.status != 200:
            key = f"; {_KEY}" if reply.status in (401, 403) else ""
            raise ServiceError(f"{self.url}/{path} answered {reply.status}: {_detail(reply)}{key}")
        return reply


def _token(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{str(value)[:40]!r} is no token id")
    return value


def _logprob(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool | str) or not math.isfinite(number):
        raise ValueError(f"{str(value)[:40]!r} is no log-probability")
    return number


def _detail(reply: Reply) -> str:
    """The line of an error reply that says what is wrong."""
    text = reply.content[:20000].decode(errors="replace")
    try:
        return error_words(reply.json(), text).line
    except ValueError:
        return error_words(None, text).line
