"""Addresses and keys of servers as people give them: checked, cleaned, and without secrets wherever they are shown."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from memfactory.core.errors import BadInput

#: What people copy along with the address of a server: the endpoint of one of its services.
_ENDPOINTS = ("/chat/completions", "/completions", "/models")
_USERINFO = re.compile(r"(?<=://)[^/?#\s@]*@")


@dataclass(frozen=True)
class Address:
    """A server: `url` without user, password and trailing slash; `query` goes behind each path (Azure's api-version).

    `login` is the value of an Authorization header for the user and the password that the address held.
    """

    url: str
    query: str = ""
    login: str | None = None

    def at(self, path: str) -> str:
        """The URL of one of its endpoints."""
        return f"{self.url}/{path}" + (f"?{self.query}" if self.query else "")

    @property
    def host(self) -> str:
        """Its name or number, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_here(self) -> bool:
        """Whether it is this machine, by the loopback."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def parse_address(text: str) -> Address:
    """The server that a text names. Raises `ValueError`, in one line without the password, for what names none.

    The endpoint of a service behind the address of the server (`/chat/completions`) is left out.
    """
    given = text.strip()
    shown = masked(given)
    if re.search(r"[\s\x00-\x1f\x7f]", given):
        raise ValueError(f"'{shown}' has white space in it")
    if "://" not in given:
        raise ValueError(f"'{shown}' does not begin with http:// or https://; try http://{shown}")
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"'{shown}' is no address of a server: {masked(str(error))}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"'{shown}' is not http:// or https://")
    if not parts.hostname or "@" in parts.hostname or (":" in parts.hostname and "[" not in parts.netloc):
        raise ValueError(
            f"'{shown}' names no server (an IPv6 number stands in brackets: http://[::1]:8000/v1)"
        )
    if port == 0:
        raise ValueError(f"'{shown}': port 0 is none that a server can be asked at")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError(f"'{shown}': no server can have this name") from None
    path = parts.path.rstrip("/")
    for endpoint in _ENDPOINTS:
        path = path.removesuffix(endpoint).rstrip("/")
    netloc = parts.netloc.rpartition("@")[2]
    return Address(urlunsplit((parts.scheme, netloc, path, "", "")), parts.query, _login(parts))


def address_of(text: str, key: str) -> Address:
    """`parse_address` for the value of `key` in a recipe. Raises `BadInput` that names it."""
    try:
        return parse_address(text)
    except ValueError as error:
        raise BadInput(f"{key}: {error}") from None


def check_address(text: str, key: str = "base_url") -> None:
    """Raise `ValueError`, naming `key`, for what names no server."""
    try:
        parse_address(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def masked(text: str) -> str:
    """A text in which no address shows its user and password."""
    return _USERINFO.sub("***@", text)


def key_in(variable: str) -> str | None:
    """The key that an environment variable holds, without white space around it; None if there is none.

    Raises `BadInput` for one that cannot be sent: a header holds printable ASCII only.
    """
    key = os.environ.get(variable, "").strip()
    for position, character in enumerate(key, start=1):
        if not "!" <= character <= "~":
            raise BadInput(
                f"{variable}: character {position} of the key is {character!a}, which no key can hold "
                "(letters, digits and signs of ASCII); set it again"
            )
    return key or None


def _login(parts: SplitResult) -> str | None:
    if parts.username is None and parts.password is None:
        return None
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
