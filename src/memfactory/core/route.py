"""The way to a server as the environment wants it: proxies and certificates, with errors that name the variable."""

from __future__ import annotations

import importlib.util
import os
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from memfactory.core.address import masked
from memfactory.core.errors import BadInput

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class Proxy:
    """A proxy and the environment variable that names it."""

    url: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {masked(self.url)} (environment variable {self.variable})"


def proxy_for(url: str) -> Proxy | None:
    """The proxy that the environment names for a URL: HTTP_PROXY or HTTPS_PROXY, else ALL_PROXY, unless NO_PROXY.

    Raises `BadInput`, naming the variable, for one that cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies_environment()
    if proxy_bypass_environment(f"{host}:{parts.port}" if parts.port else host, proxies):
        return None
    for kind in (parts.scheme, "all"):
        found = proxies.get(kind, "").strip()
        if found:
            return _checked(found, _variable(f"{kind}_proxy"))
    return None


def transport_for(
    url: str, *, environment: bool = True, socket: str | None = None
) -> tuple[Any, Proxy | None]:
    """An httpx transport that reaches a URL, with the proxy on the way, if any; without `environment` directly.

    `socket` is the path of a Unix socket at which the server is. Raises `BadInput` for a proxy or for certificates
    that cannot be used.
    """
    import httpx

    proxy = proxy_for(url) if environment and socket is None else None
    named = map(os.environ.get, _CERTIFICATES) if environment else (None, None)
    certificates: Any = _certificates(*named)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    if proxy is None:
        return httpx.AsyncHTTPTransport(verify=certificates, limits=limits, uds=socket), None
    return httpx.AsyncHTTPTransport(verify=certificates, limits=limits, proxy=httpx.Proxy(proxy.url)), proxy


def check_environment(url: str) -> None:
    """Raise `BadInput` for a proxy or certificates that nobody could reach a URL with."""
    proxy_for(url)
    _certificates(*map(os.environ.get, _CERTIFICATES))


def _variable(name: str) -> str:
    """The variable as it is written in the environment; urllib prefers small letters."""
    return name if os.environ.get(name) else next((n for n in os.environ if n.lower() == name), name.upper())


def _checked(text: str, variable: str) -> Proxy:
    import httpx

    url = text if "://" in text else f"http://{text}"
    shown = f"{variable}={masked(url)}"
    try:
        httpx.Proxy(url)
        if not urlsplit(url).hostname or urlsplit(url).port == 0:
            raise ValueError("it names no server")
    except (ValueError, httpx.InvalidURL) as error:
        reason = masked(" ".join(str(error).split()))[:200]
        raise BadInput(f"{shown}: not a proxy that can be used ({reason}); correct or unset it") from None
    if url.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise BadInput(
            f"{shown}: a SOCKS proxy needs a package that is not installed: pip install 'httpx[socks]'; "
            "or unset the variable, or name the server in NO_PROXY"
        )
    return Proxy(url, variable)


@lru_cache(maxsize=4)
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """What servers' certificates are checked with; reading them takes a while."""
    import httpx

    for variable, path in zip(_CERTIFICATES, (file, folder), strict=True):
        if not path:
            continue
        place = {"cafile": path} if variable == "SSL_CERT_FILE" else {"capath": path}
        try:
            os.stat(path)
            return ssl.create_default_context(**place)  # type: ignore[arg-type]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
            raise BadInput(
                f"{variable}={path}: no certificates there ({reason}); correct or unset it"
            ) from None
    return httpx.create_ssl_context(trust_env=False)
