"""A server on loopback that writes whatever bytes it is told to, for tests."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def raw(answer: Callable[[Callable[[bytes], None], bytes], None]) -> Iterator[str]:
    """A server that lets `answer(send, request)` write bytes; its address."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request = b""
            while b"\r\n\r\n" not in request:
                found = self.request.recv(65536)
                if not found:
                    return
                request += found
            if request.startswith(b"POST"):
                while not request.endswith(b"}"):
                    request += self.request.recv(65536)
            with suppress(OSError):  # the client may have had enough
                answer(self.request.sendall, request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def drip(send: Callable[[bytes], None], request: bytes, head: bytes) -> None:
    """Write `head` and then a byte at a time, for ever."""
    send(head)
    while True:
        send(b"a")
        time.sleep(0.02)
