"""What people write where a server's address or a key belongs, and what the environment says of the way there."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfactory.core.address import key_in, masked, parse_address
from memfactory.core.errors import BadInput
from memfactory.core.route import check_environment, proxy_for


@pytest.mark.parametrize(
    ("given", "url", "query"),
    [
        (" http://localhost:8000/v1/ \n", "http://localhost:8000/v1", ""),
        ("http://h/v1/chat/completions", "http://h/v1", ""),
        ("https://h/v1/models/", "https://h/v1", ""),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", ""),
        ("https://h/openai/v1?api-version=preview", "https://h/openai/v1", "api-version=preview"),
        ("http://ann:s3cret@h:80/v1", "http://h:80/v1", ""),
    ],
)
def test_addresses_that_name_a_server(given: str, url: str, query: str) -> None:
    found = parse_address(given)
    assert (found.url, found.query) == (url, query)
    assert found.login == ("Basic YW5uOnMzY3JldA==" if "@" in given else None)
    assert found.at("models") == f"{url}/models" + (f"?{query}" if query else "")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("localhost:8000/v1", "try http://localhost:8000/v1"),
        ("ftp://h/v1", "not http:// or https://"),
        ("http://h:99999/v1", "[Pp]ort"),
        ("http://h:0/v1", "port 0"),
        ("http://h:eighty/v1", "Port"),
        ("http://a b/v1", "white space"),
        ("http://::1:8000/v1", "no address|names no server"),
        ("http://[::1/v1", "Invalid IPv6"),
        ("http:///v1", "names no server"),
        ("http://ann:s3cret@h:99999/v1", r"\*\*\*@h"),
        ("http://" + "a" * 70 + ".com", "no server can have this name"),
        ("", "does not begin"),
    ],
)
def test_addresses_that_name_none_are_one_line_without_the_password(given: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        parse_address(given)
    assert "\n" not in str(caught.value) and "s3cret" not in str(caught.value)


def test_passwords_are_masked_wherever_they_stand() -> None:
    text = "from https://ann:p:w@h/x to socks5://bob@[::1]:9, not a@b.c"
    assert masked(text) == "from https://***@h/x to socks5://***@[::1]:9, not a@b.c"


def test_a_key_is_stripped_and_must_fit_into_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, kept in (("sk-abc\r\n", "sk-abc"), (" \n", None), ("", None)):
        monkeypatch.setenv("A_KEY", given)
        assert key_in("A_KEY") == kept
    for wrong in ("sk-é", "sk abc", "a\x7fb", "a\nb", "\udc80"):
        monkeypatch.setenv("A_KEY", wrong)
        with pytest.raises(BadInput, match="A_KEY: character") as caught:
            key_in("A_KEY")
        assert "sk-" not in str(caught.value)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies and certificates."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_proxy_is_the_environments(clean: pytest.MonkeyPatch) -> None:
    assert proxy_for("http://h/v1") is None
    clean.setenv("ALL_PROXY", "http://ann:pw@p:1")
    assert str(proxy_for("http://h/v1")) == "the proxy http://***@p:1 (environment variable ALL_PROXY)"
    clean.setenv("https_proxy", "p:2")
    found = proxy_for("https://h/v1")
    assert found is not None and (found.url, found.variable) == ("http://p:2", "https_proxy")
    clean.setenv("NO_PROXY", "h, .example.org")
    assert proxy_for("https://h/v1") is None and proxy_for("https://x.example.org") is None
    assert proxy_for("https://other/") is not None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("socks5://u:pw@127.0.0.1:1080", r"ALL_PROXY=socks5://\*\*\*@127.*httpx\[socks\].*NO_PROXY"),
        ("ftp://p:1", "not a proxy"),
        ("http://p:99999", "not a proxy"),
        ("http://", "not a proxy"),
    ],
)
def test_proxies_that_cannot_be_used_name_the_variable(
    value: str, told: str, clean: pytest.MonkeyPatch
) -> None:
    clean.setenv("ALL_PROXY", value)
    with pytest.raises(BadInput, match=told) as caught:
        check_environment("https://h/v1")
    assert "ALL_PROXY" in str(caught.value) and "\n" not in str(caught.value)
    clean.setenv("NO_PROXY", "h")
    check_environment("https://h/v1")


def test_certificates_that_are_gone_name_the_variable(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "odd.pem").write_text("no certificate")
    for path in (tmp_path / "gone.pem", tmp_path / "odd.pem", tmp_path):
        clean.setenv("SSL_CERT_FILE", str(path))
        with pytest.raises(BadInput, match=r"SSL_CERT_FILE=.*correct or unset it"):
            check_environment("http://h/v1")
