"""HTTP to servers that are not trusted: every exchange ends, by a time, a size and a reason in one line.

The deadline is for the whole exchange, from the connection to the last byte of the body: a server that sends a byte a
second keeps no other limit. The size is that of the body after decompression. Nothing is sent on to another host.
"""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from memfactory.core.address import Address, masked
from memfactory.core.route import Proxy, transport_for

T = TypeVar("T")

#: Bytes of a reply, unless the caller says otherwise; the longest chat replies with log-probabilities have 20 MB.
MOST_BYTES = 64 * 2**20
#: Seconds until a connection stands.
_CONNECT = 10.0
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


class HttpFailed(Exception):
    """No usable reply came; the message says why in one line that begins with a verb. `again`: another try may help."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


class NoAnswerInTime(HttpFailed):
    """The deadline passed."""


@dataclass(frozen=True)
class Reply:
    """A whole reply; `content` is decompressed."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The body as a JSON value. Raises `ValueError`, whatever the bytes are."""
        try:
            return json.loads(self.content)
        except RecursionError:
            raise ValueError("JSON that is nested too deeply") from None
        except UnicodeDecodeError:
            raise ValueError("bytes that are no text") from None
        except ValueError as error:
            told = str(error) if isinstance(error, json.JSONDecodeError) else "a number that is too long"
            raise ValueError(f"what is not JSON ({told}): {self.begins}") from None

    @property
    def begins(self) -> str:
        """How the body begins, for messages."""
        return repr(" ".join(self.content[:200].decode(errors="replace").split())[:80])


class Connection:
    """One server, asked from any number of event loops, one after the other, and without one."""

    def __init__(
        self,
        address: Address,
        *,
        key: str | None = None,
        environment: bool = True,
        socket: str | None = None,
        most_bytes: int = MOST_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`key` and `headers` go into every request. Without `environment` proxies are passed by.

        `socket` is the path of a Unix socket.
        """
        self.address = address
        self._headers = {"accept": "application/json", "accept-encoding": "gzip, deflate", **(headers or {})}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        elif address.login is not None:
            self._headers["authorization"] = address.login
        self._environment, self._socket, self._most_bytes = environment, socket, most_bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._proxy: Proxy | None = None

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        seconds: float,
        longer: Callable[[], float] | None = None,
    ) -> Reply:
        """One exchange within `seconds`. `body` is sent as JSON.

        `longer` is asked when they are over: for how many seconds more to wait, 0 for none. Raises `HttpFailed`.
        `BadInput` for an environment that keeps everybody from the server.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._client is None:
            self._client, self._proxy = new_client(self.address.url, self._environment, self._socket)
            self._loop = loop
        work = self._exchange(self._client, self._proxy, method, path, body)
        return await within(work, seconds, longer)

    def ask(self, method: str, path: str, body: Any = None, *, seconds: float) -> Reply:
        """`request`, for callers without an event loop; blocks, over a connection of its own."""

        async def once() -> Reply:
            client, proxy = new_client(self.address.url, self._environment, self._socket)
            async with client:
                return await within(self._exchange(client, proxy, method, path, body), seconds)

        return run_blocking(once())

    def close(self) -> None:
        """Forget the connections; idempotent."""
        self._loop = self._client = None

    async def _exchange(self, client: Any, proxy: Proxy | None, method: str, path: str, body: Any) -> Reply:
        async with opened(
            client, proxy, method, self.address.at(path), headers=self._headers, body=body
        ) as response:
            content = bytearray()
            async for chunk in decoded(response, self._most_bytes):
                content += chunk
            return Reply(response.status_code, response.headers, bytes(content))


async def within(
    work: Coroutine[Any, Any, T], seconds: float, longer: Callable[[], float] | None = None
) -> T:
    """The result of `work`, which is given up when the time is over; see `Connection.request`."""
    task = asyncio.ensure_future(work)
    remaining = seconds
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=remaining)
            if done:
                return task.result()
            remaining = 0.0 if longer is None else longer()
            if remaining <= 0:
                raise NoAnswerInTime(f"gave no answer within {seconds:g} s")
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, also where an event loop is running: then on a thread beside it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="http")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def new_client(url: str, environment: bool, socket: str | None = None) -> tuple[Any, Proxy | None]:
    import httpx

    transport, proxy = transport_for(url, environment=environment, socket=socket)
    # The deadline is ours; only a connection that does not come about is worth knowing of sooner.
    timeout = httpx.Timeout(None, connect=_CONNECT)
    return httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False), proxy


@asynccontextmanager
async def opened(
    client: Any,
    proxy: Proxy | None,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: Any = None,
    passed: list[Mapping[str, str]] | None = None,
) -> AsyncIterator[Any]:
    """An httpx response whose body has not been read; redirects within its host have been followed.

    With `passed`, a list that gets the headers of the redirects, those to other hosts are followed too, by https and
    without login: for what is public. Raises `HttpFailed` for everything that goes wrong, also while the body is read.
    """
    import httpx

    response: Any = None
    content = None if body is None else json.dumps(body).encode()
    sent = dict(headers) if content is None else {**headers, "content-type": "application/json"}
    try:
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                request = client.build_request(method, url, headers=sent, content=content)
                response = await client.send(request, stream=True, follow_redirects=False)
            except (httpx.InvalidURL, OSError, ValueError) as error:
                raise _failure(error, url, proxy) from error
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                break
            see_other = response.status_code == 303 and method != "GET"
            if passed is not None:
                passed.append(response.headers)
            elsewhere, target = _next(url, response.headers["location"])
            if see_other or (elsewhere and (passed is None or not target.startswith("https://"))):
                raise HttpFailed(
                    f"redirects to {masked(target)[:200]}; what is asked goes to no other server than the one that is "
                    "named: correct the address",
                    again=False,
                )
            if elsewhere:
                sent.pop("authorization", None)
            url = target
            await response.aclose()
        else:
            raise HttpFailed("redirects in a circle; correct the address", again=False)
        yield response
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise _failure(error, url, proxy) from error
    finally:
        if response is not None:
            await response.aclose()


async def decoded(response: Any, most_bytes: int) -> AsyncIterator[bytes]:
    """The body in pieces, decompressed. Raises `HttpFailed` as soon as it is longer than `most_bytes`."""
    decoder = _Decoder(response.headers.get("content-encoding", ""))
    length = 0
    async for raw in response.aiter_raw():
        for piece in decoder.decode(raw, most_bytes - length + 1):
            length += len(piece)
            if length > most_bytes:
                raise HttpFailed(f"sends a reply of more than {most_bytes >> 20} MiB", again=False)
            yield piece
    decoder.finish()


class _Decoder:
    """Decompresses in bounded pieces: a megabyte of zeros is a kilobyte, so the size is known only afterwards."""

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise HttpFailed(
                f"sends a reply in the encoding {encoding[:40]!r}, which nobody asked for", again=False
            )
        self._zlib: Any = None if encoding in ("", "identity") else zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._began = False

    def decode(self, raw: bytes, most: int) -> list[bytes]:
        """What `raw` holds, at most `most` bytes of it."""
        if self._zlib is None:
            return [raw]
        pieces = []
        while raw and most > 0:
            try:
                piece = self._zlib.decompress(raw, most)
            except zlib.error as error:
                if self._began:
                    raise HttpFailed(f"sends a reply that cannot be decompressed ({error})") from None
                self._zlib, self._began = (
                    zlib.decompressobj(-zlib.MAX_WBITS),
                    True,
                )  # "deflate" without a header
                continue
            self._began = True
            pieces.append(piece)
            most -= len(piece)
            raw = self._zlib.unconsumed_tail
            if self._zlib.eof and self._zlib.unused_data:  # gzip of several parts
                raw, self._zlib = self._zlib.unused_data, zlib.decompressobj(zlib.MAX_WBITS | 32)
        return pieces

    def finish(self) -> None:
        """Raise `HttpFailed` for a compressed body that has no end."""
        if self._zlib is not None and self._began and not self._zlib.eof:
            raise HttpFailed("sends a reply that ends in the middle")


def _next(url: str, location: str) -> tuple[bool, str]:
    """Where a redirect leads, and whether that is another server: another host, or back from https to http."""
    target = location
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
        safer = (here.scheme, there.scheme) == ("http", "https") and here.hostname == there.hostname
    except ValueError:
        return True, target
    return not (same or safer), target


def _failure(error: Exception, url: str, proxy: Proxy | None) -> HttpFailed:
    """The true cause of what httpx raised."""
    import ssl

    import httpx

    told = _cause(error)
    chain = [error, *_causes(error)]
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in chain) or "CERTIFICATE_VERIFY" in told:
        return HttpFailed(
            f"cannot prove who it is ({told}); certificates to trust go into a file that SSL_CERT_FILE names",
            again=False,
        )
    if isinstance(error, httpx.ConnectTimeout):
        told = f"no connection within {_CONNECT:g} s"
    if proxy is not None and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return HttpFailed(
            f"cannot be reached through {proxy}: {told}; is the proxy running? NO_PROXY={urlsplit(url).hostname} "
            "passes it by"
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return HttpFailed(f"cannot be reached; is it running, and is the address right? ({told})")
    if isinstance(
        error, httpx.LocalProtocolError | httpx.InvalidURL | httpx.UnsupportedProtocol | UnicodeError
    ):
        return HttpFailed(f"cannot be asked ({told})", again=False)
    return HttpFailed(f"broke off ({told})")


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    following = error.__cause__ or error.__context__
    while following is not None and len(found) < 10:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _cause(error: BaseException) -> str:
    """The words of an error; httpx's own often say less than the system's that caused it."""
    words = " ".join(str(error).split())
    if not words or words == "All connection attempts failed":
        deeper = [" ".join(str(one).split()) for one in _causes(error) if isinstance(one, OSError)]
        words = next((text for text in reversed(deeper) if text), words)
    return masked(words)[:200] or type(error).__name__
