"""Fetching a checkpoint from a server that behaves, and from ones that do not."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import torch

from server.cli import main
from server.download import DownloadError, download
from stitching.checkpoint import save, sha256, shipped
from stitching.families import family
from stitching.model import SNNet

CONTENT = bytes(range(256)) * 2000


@dataclass
class Host:
    """A file server; `cuts`: after how many bytes the next answers end; `statuses`: what the next ones say instead."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    claims: int | None = None
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def host() -> Iterator[Host]:
    told = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            told.ranges.append(asked)
            if told.statuses:
                self.send_error(told.statuses.pop(0))
                return
            start = 0
            if asked and self.headers.get("If-Range") == told.etag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            total = told.claims or len(told.content)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(total - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if told.etag:
                self.send_header("ETag", told.etag)
            self.end_headers()
            end = told.cuts.pop(0) if told.cuts else len(told.content)
            self.wfile.write(told.content[start:end])

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/file.safetensors"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(host: Host, partial: Path, most_bytes: int = 10**9, attempts: int = 3) -> list[float]:
    """Downloads; gives the pauses between attempts."""
    pauses: list[float] = []
    with httpx.Client() as client:
        download(host.url, partial, client, most_bytes=most_bytes, attempts=attempts, sleep=pauses.append)
    return pauses


def test_a_transfer_that_is_cut_goes_on_where_it_stopped(host: Host, tmp_path: Path) -> None:
    host.cuts = [100_000, 300_000]
    assert len(fetch(host, tmp_path / "part")) == 2
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert host.ranges == [None, "bytes=100000-", "bytes=300000-"]


def test_a_later_call_goes_on_too(host: Host, tmp_path: Path) -> None:
    host.cuts = [100_000]
    with pytest.raises(DownloadError, match=r"cut 1 times.*run this again to go on"):
        fetch(host, tmp_path / "part", attempts=1)
    fetch(host, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert host.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("etag", ['"two"', None, 'W/"one"'])
def test_another_version_is_fetched_from_its_beginning(host: Host, tmp_path: Path, etag: str | None) -> None:
    host.cuts = [100_000]
    with pytest.raises(DownloadError):
        fetch(host, tmp_path / "part", attempts=1)
    host.etag, host.content = etag, CONTENT[::-1]
    fetch(host, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT[::-1]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(host: Host, tmp_path: Path) -> None:
    host.statuses = [503, 429]
    assert len(fetch(host, tmp_path / "part")) == 2
    host.statuses = [404]
    with pytest.raises(DownloadError, match=r"file\.safetensors: the server answers 404"):
        fetch(host, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_fewer_bytes_than_announced_are_not_enough(host: Host, tmp_path: Path) -> None:
    host.claims, host.etag = len(CONTENT) + 1, None
    with pytest.raises(DownloadError, match="cut 3 times"):
        fetch(host, tmp_path / "part")


def test_a_file_larger_than_allowed_is_not_fetched(host: Host, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"512000 bytes, more than the 1000 allowed"):
        fetch(host, tmp_path / "part", most_bytes=1000)
    assert not (tmp_path / "part").exists()


def pull(host: Host, out: Path) -> int:
    try:
        main(["pull", "digits", "--url", host.url, "--out", str(out), "--attempts", "1"])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_pull_checks_what_it_fetched_and_notes_its_hash(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.content = shipped("digits").read_bytes()
    assert pull(host, tmp_path) == 0
    path = tmp_path / "file.safetensors"
    assert sha256(path) == sha256(shipped("digits"))
    assert (tmp_path / "file.safetensors.sha256").read_text() == f"{sha256(path)}  file.safetensors\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file.safetensors", "file.safetensors.sha256"]
    assert f"--checkpoint {path}" in capsys.readouterr().out
    assert pull(host, tmp_path) == 0
    assert "already here" in capsys.readouterr().out
    assert len(host.ranges) == 1


def test_what_does_not_load_is_not_kept(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"head.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    host.content = (tmp_path / "other.pth").read_bytes()
    (tmp_path / "other.pth").unlink()
    assert pull(host, tmp_path) == 2
    assert "not a whole safetensors file" in capsys.readouterr().err
    assert not list(tmp_path.glob("file*"))


def test_a_family_that_was_not_released_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pull", "digits"])
    assert "never released" in capsys.readouterr().err


def test_a_family_of_the_users_own_is_pulled_from_where_it_lies(host: Host, tmp_path: Path) -> None:
    digits = family("digits")
    own = tmp_path / "own.json"
    own.write_text(json.dumps({**digits.config(), "name": "own"}))
    save(SNNet(family(str(own))), tmp_path / "there.safetensors")
    host.content = (tmp_path / "there.safetensors").read_bytes()
    main(["pull", str(own), "--url", host.url, "--out", str(tmp_path / "here")])
    assert (tmp_path / "here" / "file.safetensors").read_bytes() == host.content
