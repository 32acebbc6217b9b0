"""Large public files over HTTP: bounded by progress and size instead of a time, for nobody knows how long they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memfactory.core.address import parse_address
from memfactory.core.http import HttpFailed, NoAnswerInTime, decoded, new_client, opened, run_blocking, within

#: Seconds in which at least `LEAST` bytes must come, else a download has stalled.
PATIENCE = 60.0
LEAST = 64 * 2**10
#: Bytes of a file, unless the caller says otherwise; the largest public set has 2.8 GB.
MOST_BYTES = 16 * 2**30


def download(
    url: str,
    write: Callable[[bytes], object],
    *,
    headers: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
) -> list[Mapping[str, str]]:
    """Hand a file's bytes to `write` as they come; returns the headers of all replies on the way, the file's last.

    Only https is followed to another host, without `headers`' login. Raises `HttpFailed` when it cannot be had, stalls
    or is longer than `most_bytes`, and whatever `write` raises; `BadInput` for proxies or certificates of the
    environment that cannot be used.
    """
    return run_blocking(_download(url, write, dict(headers or {}), most_bytes))


async def _download(
    url: str, write: Callable[[bytes], object], headers: dict[str, str], most_bytes: int
) -> list[Mapping[str, str]]:
    try:
        parse_address(url)
    except ValueError as error:
        raise HttpFailed(str(error), again=False) from None
    client, proxy = new_client(url, environment=True)
    passed: list[Mapping[str, str]] = []
    came = 0

    async def work() -> None:
        nonlocal came
        sent = {**{name.lower(): value for name, value in headers.items()}, "accept-encoding": "identity"}
        async with opened(client, proxy, "GET", url, headers=sent, passed=passed) as response:
            if response.status_code != 200:
                raise HttpFailed(
                    f"answers {response.status_code} {response.reason_phrase}".rstrip(), again=False
                )
            passed.append(response.headers)
            async for piece in decoded(response, most_bytes):
                came += len(piece)
                write(piece)

    seen = 0

    def longer() -> float:
        nonlocal seen
        if came - seen < LEAST:
            return 0.0
        seen = came
        return PATIENCE

    async with client:
        try:
            await within(work(), PATIENCE, longer)
        except NoAnswerInTime:
            raise HttpFailed(f"stalls: {came - seen} bytes in {PATIENCE:g} s") from None
    return passed
