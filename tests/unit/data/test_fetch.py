"""The catalogue names readers that exist, and a download is whole or not there."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from memfactory.core import download, registry
from memfactory.core.errors import BadInput, ServiceError
from memfactory.core.http import HttpFailed
from memfactory.data import catalog, fetch
from memfactory.data.catalog import CATALOG, DataSet, WebFile, where_to_get
from memfactory.data.files import open_records
from tests.raw_server import drip, raw


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on the folder `served`; its address."""
    (tmp_path / "served").mkdir()
    handler = partial(_Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def offered(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue with one data set on the server; the folder that is served."""
    served = tmp_path / "served"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo("inside/a.txt")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    (served / "set.tar.gz").write_bytes(archive.getvalue())
    (served / "dev.json").write_text("[1]")
    parts = {
        "dev": WebFile(f"{server}/dev.json"),
        "archive": WebFile(f"{server}/set.tar.gz", hashlib.sha256(archive.getvalue()).hexdigest()),
        "changed": WebFile(f"{server}/dev.json?", "0" * 64),
        "gone": WebFile(f"{server}/gone.json"),
    }
    monkeypatch.setattr(catalog, "CATALOG", (DataSet("mine", "", "jsonl", "", "", parts),))
    monkeypatch.chdir(tmp_path)
    return served


def test_every_reader_of_the_catalogue_exists_and_every_set_can_be_had() -> None:
    from memfactory.recipe.components import load_components

    load_components()
    for entry in CATALOG:
        assert entry.reader in registry.names("data"), entry.name
        assert entry.parts or entry.make, entry.name
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)


def test_parts_are_downloaded_unpacked_and_kept(offered: Path) -> None:
    said: list[str] = []
    assert fetch.fetch("mine", ["dev", "archive"], say=said.append) == [
        Path("data/mine/dev.json"),
        Path("data/mine/set.tar.gz"),
    ]
    assert Path("data/mine/dev.json").read_text() == "[1]"
    assert Path("data/mine/inside/a.txt").read_text() == "hi"
    assert len(said) == 2
    (offered / "dev.json").write_text("[2]")
    fetch.fetch("mine", ["dev"], say=said.append)
    assert Path("data/mine/dev.json").read_text() == "[1]" and len(said) == 2
    inside = Path("data/mine/inside/a.txt")
    inside.unlink()
    fetch.fetch("mine", ["archive"], say=said.append)
    assert inside.read_text() == "hi"
    inside.write_text("my own notes")
    with pytest.raises(BadInput, match=r"inside/a\.txt: is there and is not the file of the archive"):
        fetch.fetch("mine", ["archive"], say=said.append)
    assert inside.read_text() == "my own notes"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("gone", r"404.*put these files into out/ yourself: gone\.json \(http"),
        ("changed", "sha256 differs"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(part: str, message: str, offered: Path) -> None:
    with pytest.raises(ServiceError, match=message):
        fetch.fetch("mine", [part], "out", say=lambda line: None)
    assert not Path("out").exists() or not list(Path("out").iterdir())


def test_what_was_fetched_first_is_what_must_come_again(offered: Path) -> None:
    fetch.fetch("mine", ["dev"], say=str)
    sums = Path("data/mine/SHA256SUMS")
    assert sums.read_text() == f"{hashlib.sha256(b'[1]').hexdigest()}  dev.json\n"
    path = Path("data/mine/dev.json")
    path.write_text("[2]")
    with pytest.raises(
        BadInput, match=r"dev\.json: it has changed since it was fetched.*delete it and fetch again"
    ):
        fetch.fetch("mine", ["dev"], say=str)
    path.unlink()
    (offered / "dev.json").write_text("[3]")
    with pytest.raises(ServiceError, match="not what was fetched before") as caught:
        fetch.fetch("mine", ["dev"], say=str)
    assert "\n" not in str(caught.value) and not path.exists()
    sums.unlink()
    fetch.fetch("mine", ["dev"], say=str)
    assert path.read_text() == "[3]"
    path.write_text("mine")
    sums.unlink()
    fetch.fetch("mine", ["dev"], say=str)
    assert path.read_text() == "mine", "what somebody put here is theirs"


def test_a_download_is_bounded_by_progress_and_size(offered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (offered / "dev.json").write_bytes(b"1" * 200_000)
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    part = catalog.CATALOG[0].parts["dev"]
    assert isinstance(part, WebFile)
    with pytest.raises(HttpFailed, match="more than 0 MiB"):
        download.download(part.url, str, most_bytes=1000)
    with pytest.raises(HttpFailed, match="answers 404"):
        download.download(part.url + ".gone", str)
    with (
        raw(lambda send, request: drip(send, request, b"HTTP/1.1 200 OK\r\n\r\n")) as url,
        pytest.raises(HttpFailed, match=r"stalls: \d+ bytes in 0\.2 s"),
    ):
        download.download(url, str)

    def slow_but_steady(send: Callable[[bytes], None], request: bytes) -> None:
        send(b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n")
        for _ in range(9):
            time.sleep(0.15)
            send(b"x" * 100_000)

    came: list[bytes] = []
    monkeypatch.setattr(download, "PATIENCE", 1.0)  # less than it takes
    with raw(slow_but_steady) as url:
        download.download(url, came.append)
    assert len(b"".join(came)) == 900_000


def test_only_https_is_fetched_and_proxies_are_named(offered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"dev": WebFile("http://example.invalid/x.json")}
    monkeypatch.setattr(catalog, "CATALOG", (DataSet("mine", "", "jsonl", "", "", parts),))
    with pytest.raises(ServiceError, match="is not https"):
        fetch.fetch("mine", say=str)
    for entry in CATALOG:
        assert all(
            file.url.startswith("https://") for file in entry.parts.values() if isinstance(file, WebFile)
        )
    parts["dev"] = WebFile("https://example.invalid/x.json")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    with pytest.raises(BadInput, match=r"ALL_PROXY=socks5.*httpx\[socks\]"):
        fetch.fetch("mine", say=str)


def test_an_unknown_part_or_a_generated_set_is_one_line(offered: Path) -> None:
    with pytest.raises(BadInput, match="no data set 'min'; did you mean 'mine'"):
        fetch.fetch("min")
    with pytest.raises(BadInput, match="no part 'dv'; did you mean 'dev'"):
        fetch.fetch("mine", ["dv"])


def test_a_missing_file_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"no such data file; get it with: memfactory data fetch locomo"):
        open_records("data/locomo/locomo10.json")
    assert where_to_get("data/mine.jsonl") == where_to_get("elsewhere/locomo/x") == ""
    assert where_to_get("longmemeval_s_cleaned.json") == (
        "; get it with: memfactory data fetch longmemeval s --output ."
    )
    assert where_to_get("mine/hotpot_train_v1.1.json") == (
        "; get it with: memfactory data fetch hotpotqa train --output mine"
    )
    assert where_to_get("mine/dev.parquet") == where_to_get("mine/eval_50.json") == "", "anybody's names"


def test_a_file_that_is_made_is_not_fetched() -> None:
    """`fetch` brings other names: to say that it gets this one would send the user in a circle."""
    hint = where_to_get("data/hotpotqa_long/train.parquet")
    assert "memfactory data make hotpotqa-long --source" in hint
    assert "--output data/hotpotqa_long/train.parquet" in hint and "hotpotqa_train_32k.parquet" in hint
    assert where_to_get("data/msc/session_5/test.txt") == "; get it with: memfactory data fetch msc"


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("banks/memory_r1/bank.json", True),
        ("data/locomo/locomo10.json", True),
        ("data/tiny_policy/model.safetensors", False),
        ("src/memfactory/data/files.py", False),
        ("tests/unit/data/test_fetch.py", False),
    ],
)
def test_what_people_say_and_download_is_not_committed(path: str, ignored: bool) -> None:
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / ".git").exists():
        pytest.skip("not a checkout of git")
    # --no-index: also for what is committed already
    done = subprocess.run(["git", "check-ignore", "--no-index", "-q", path], cwd=checkout, check=False)
    assert done.returncode == (0 if ignored else 1)
