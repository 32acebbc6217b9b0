"""A small OpenAI-compatible server on loopback, for tests, that can be told to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def reply(text: object = "Paris", **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
    }


def thinking(
    thought: str, text: object, finish: str = "stop", field: str = "reasoning_content"
) -> dict[str, Any]:
    """A reply of a server that tells the thought apart."""
    message = {"role": "assistant", "content": text, field: thought}
    return reply(message=message, finish_reason=finish)


class Server(ThreadingHTTPServer):
    """Answers chat requests from `script`: a status, a body, both, or a function of the request that gives one of them.

    The last one is given again and again.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Any] = [reply()]
        self.models: Any = {"object": "list", "data": [{"id": "served", "object": "model"}]}
        self.delay = 0.0
        self.bodies: list[dict[str, Any]] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200, self.server.models)

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.bodies.append(body)
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
            action = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        if callable(action):
            action = action(body)
        time.sleep(server.delay)
        with server.lock:
            server.busy -= 1
        if isinstance(action, int):
            self.answer(action, {"error": {"message": f"status {action}"}})
        elif isinstance(action, tuple):
            self.answer(*action)
        else:
            self.answer(200, action)

    def answer(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.send_header("retry-after-ms", "10")  # heeded by the client: keeps these tests quick
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # the client has gone, as in the time-out test

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs while the block does."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
