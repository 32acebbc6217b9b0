"""A stand-in for `vllm serve`: the endpoints that the sampler uses, over real sockets, with no model.

A completion's tokens are a function of prompt and seed, so whoever answers, the answer is the same. In a process of
its own (`python -m tests.unit.samplers.fake_vllm PORT`) it can be killed for real.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class FakeVllm:
    """One server in a thread. `fault` is what the next requests get instead of an answer."""

    def __init__(self, port: int = 0, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.weights = "default"
        self.loaded: list[dict[str, Any]] = []
        self.resets = 0
        self.answered: list[tuple[int, ...]] = []
        self.fault: str | None = None
        self.adapters: dict[str, dict[str, Any]] = {}
        self.asked_for: list[str | None] = []
        self.facts: dict[str, Any] = {
            "vocabulary": 100,
            "max_model_len": 64,
            "logprobs": "processed_logits",
            "draw": True,
            "device": "cpu",
        }
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None: ...

            def do_GET(self) -> None:
                self._reply(*fake.get(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                code, value = fake.post(self.path, json.loads(body) if body else {})
                if code == 0:
                    self.close_connection = True  # gone in the middle of a reply
                    self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{")
                else:
                    self._reply(code, value)

            def _reply(self, code: int, value: Any) -> None:
                data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(code)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *arguments: Any) -> None: ...  # clients may go away

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeVllm:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *arguments: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/health":
            return (500 if self.fault == "sick" else 200), {}
        if path == "/weight_info":
            return 200, {"weight_version": self.weights}
        if path == "/v1/models":
            cards = [{"id": name, "parent": "base"} for name in self.adapters]
            return 200, {"data": [{"id": "base", "parent": None}, *cards]}
        return 404, {"detail": "Not Found"}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/inference/v1/generate":
            return self.generate(body)
        if path == "/collective_rpc" and body["method"] == "memfactory_describe":
            return 200, {"results": [self.facts]}
        if path == "/collective_rpc" and body["method"] == "memfactory_load":
            from safetensors.torch import load_file

            tensors: dict[str, Any] = {}
            for file in sorted(Path(body["args"][0]).glob("*.safetensors")):
                tensors.update(load_file(file))
            if self.fault != "deaf":
                self.loaded.append(tensors)
            return 200, {"results": [{"tensors": len(tensors)}]}
        if path == "/collective_rpc" and body["method"] == "memfactory_held":
            import torch

            from memfactory.samplers.checksums import digest

            layout, held = json.loads(body["args"][0]), (self.loaded or [{}])[-1]
            digests = {
                name: str(digest(held[name].to(getattr(torch, kind))))
                for name, (kind, *_) in layout.items()
                if name in held
            }
            return 200, {"results": [{"digests": digests, "packed": [], "empty": [], "unread": []}]}
        if path == "/v1/load_lora_adapter" and self.facts.get("adapter_rank"):
            from safetensors.torch import load_file

            if body["lora_name"] in self.adapters:
                return 400, {"error": {"message": "has already been loaded"}}
            self.adapters[body["lora_name"]] = load_file(
                Path(body["lora_path"]) / "adapter_model.safetensors"
            )
            return 200, "Success"
        if path == "/v1/unload_lora_adapter":
            found = self.adapters.pop(body["lora_name"], None)
            return (200 if found else 404), "Success"
        if path == "/reset_prefix_cache":
            self.resets += 1
            return 200, {"success": self.fault != "cache"}
        if path == "/update_weight_version":
            self.weights = body["new_version"]
            return 200, {"success": True}
        return 404, {"detail": "Not Found"}

    def generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.fault == "refuse":
            return 400, {"error": {"message": "prompt\nis too long"}}
        if self.fault == "broken":
            return 500, {"error": {"message": "EngineCore died"}}
        if self.fault == "garbage":
            return 200, "<html>"
        if self.fault == "empty":
            return 200, {"choices": []}
        if self.fault == "cut":
            return 0, None
        if body.get("model") is not None and body["model"] not in self.adapters:
            return 404, {"error": {"message": "The model does not exist."}}
        self.asked_for.append(body.get("model"))
        time.sleep(self.seconds)
        draw = body["sampling_params"]["extra_args"]["draw"]
        ids = tokens(body["token_ids"], draw[3], body["sampling_params"]["max_tokens"])
        self.answered.append((*body["token_ids"], draw[3]))
        content = [{"token_id": i, "logprob": -i / 8, "top_logprobs": []} for i in ids]
        choice = {
            "finish_reason": "abort" if self.fault == "abort" else "length",
            "token_ids": ids,
            "logprobs": {"content": content},
            "weight_versions": [{"start": 0, "end": len(ids), "version": self.weights}],
        }
        return 200, {"choices": [choice]}


def tokens(prompt: list[int], seed: int, count: int) -> list[int]:
    """What every fake server draws."""
    return [(sum(prompt) * 31 + seed * 7 + n) % 100 for n in range(count)]


if __name__ == "__main__":
    with FakeVllm(int(sys.argv[1]), seconds=float(sys.argv[2])):
        time.sleep(600)
