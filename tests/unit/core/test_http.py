"""Every exchange ends: by its deadline, its size, or a reason in one line; against sockets that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.address import parse_address
from memfactory.core.http import Connection, HttpFailed, NoAnswerInTime, Reply
from tests.raw_server import drip, raw


def get(url: str, seconds: float = 20.0, most: int = 1 << 20, blocking: bool = False) -> Reply:
    connection = Connection(parse_address(url), most_bytes=most)
    if blocking:
        return connection.ask("GET", "x", seconds=seconds)
    return asyncio.run(connection.request("GET", "x", seconds=seconds))


def whole(content: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(content)}", "connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\n\r\n", b""])
def test_a_byte_at_a_time_keeps_no_deadline_open(head: bytes, blocking: bool) -> None:
    with (
        raw(lambda send, request: drip(send, request, head)) as url,
        pytest.raises(HttpFailed, match=r"within 0\.2 s|broke off"),
    ):
        get(url, 0.2, blocking=blocking)


def test_it_may_be_waited_longer_and_inside_a_loop_too() -> None:
    more = [0.1, 0.1, 0.0]

    async def main(url: str) -> None:
        connection = Connection(parse_address(url))
        with pytest.raises(NoAnswerInTime):
            await connection.request("GET", "x", seconds=0.05, longer=lambda: more.pop(0))
        with pytest.raises(NoAnswerInTime):
            connection.ask("GET", "x", seconds=0.05)

    with raw(lambda send, request: time.sleep(1)) as url:
        asyncio.run(main(url))
    assert more == []


def test_a_body_without_end_and_one_that_swells() -> None:
    def endless(send: Callable[[bytes], None], request: bytes) -> None:
        send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            send(b"a" * 65536)

    bombs = [gzip.compress(bytes(3_000_000)), zlib.compress(bytes(3_000_000))]
    with raw(endless) as url, pytest.raises(HttpFailed, match="more than 1 MiB"):
        get(url)
    for bomb, name in zip(bombs, ("gzip", "deflate"), strict=True):
        with (
            raw(lambda send, request, b=bomb, n=name: send(whole(b, f"content-encoding: {n}"))) as url,
            pytest.raises(HttpFailed, match="more than 1 MiB"),
        ):
            get(url)


def _raw_deflate(data: bytes) -> bytes:
    maker = zlib.compressobj(wbits=-15)
    return maker.compress(data) + maker.flush()


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        (gzip.compress(b"hello", mtime=0), "gzip", b"hello"),
        (gzip.compress(b"he", mtime=0) + gzip.compress(b"llo", mtime=0), "x-gzip", b"hello"),
        (zlib.compress(b"hello"), "deflate", b"hello"),
        (_raw_deflate(b"hello"), "deflate", b"hello"),
        (b"hello", "identity", b"hello"),
        (gzip.compress(b"hello", mtime=0)[:-9], "gzip", "ends in the middle"),
        (b"no gzip at all, not even nearly", "gzip", "cannot be decompressed"),
        (b"hello", "br", "'br', which nobody asked for"),
    ],
)
def test_compressed_replies(content: bytes, encoding: str, expected: bytes | str) -> None:
    with raw(lambda send, request: send(whole(content, f"content-encoding: {encoding}"))) as url:
        if isinstance(expected, bytes):
            assert get(url).content == expected
        else:
            with pytest.raises(HttpFailed, match=expected):
                get(url)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", "broke off"),
        (b"SSH-2.0-OpenSSH\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab", "broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab", "broke off"),
        (b"HTTP/1.1 200 OK\r\nx" + b"y" * 200_000, "broke off"),
        (b"HTTP/1.1 999999 OK\r\n\r\n", "broke off"),
        (whole(b"", "location: http://example.invalid/x", status="302 Found"), "redirects to http://example.invalid/x"),
        (whole(b"", "location: http://a:pw@[::1/x", status="307 X"), "location header"),
        (whole(b"", "location: /x", status="308 Permanent Redirect"), "in a circle"),
    ],
)  # fmt: skip
def test_what_is_no_reply_is_one_line(sent: bytes, told: str) -> None:
    with raw(lambda send, request: send(sent)) as url, pytest.raises(HttpFailed, match=told) as caught:
        get(url)
    assert "\n" not in str(caught.value) and "pw" not in str(caught.value)


def test_a_redirect_within_the_host_takes_prompt_and_key_along() -> None:
    seen: list[bytes] = []

    def answer(send: Callable[[bytes], None], request: bytes) -> None:
        seen.append(request)
        send(
            whole(b"", "location: /v2/x", status="308 X") if request.startswith(b"POST /v1") else whole(b"1")
        )

    with raw(answer) as url:
        connection = Connection(parse_address(url + "/v1"), key="sk")
        reply = asyncio.run(connection.request("POST", "x", {"a": 1}, seconds=20))
    assert reply.json() == 1 and len(seen) == 2
    assert seen[1].startswith(b"POST /v2/x") and b"Bearer sk" in seen[1] and seen[1].endswith(b'{"a": 1}')


@given(
    st.binary() | st.sampled_from([b"[" * 100_000, b"9" * 5000, b'"\\ud800"', b"\xff", b"", b"NaN", b"1e999"])
)
def test_any_body_is_a_value_or_one_line(content: bytes) -> None:
    assert "\n" not in _told(content)


def _told(content: bytes) -> str:
    try:
        Reply(200, {}, content).json()
    except ValueError as error:
        return str(error)
    return ""
