"""Downloads one large file over HTTP: goes on where it was cut, and never leaves half a file under the final name."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
from tqdm import tqdm

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Status codes after which another attempt may go well."""


class DownloadError(ValueError):
    """A file that could not be fetched; the message names the address and what to do."""


class _Cut(Exception):  # noqa: N818 - not a fault yet: another attempt goes on from here
    """The transfer ended early."""


def download(
    url: str,
    partial: Path,
    client: httpx.Client,
    *,
    most_bytes: int,
    attempts: int = 5,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch `url` into `partial`, whole, going on with what earlier calls left there of the same version of the file.

    Raises DownloadError when the server refuses, the file is larger than `most_bytes`, or it was cut `attempts` times.
    """
    for attempt in range(attempts):
        if attempt:
            sleep(min(2.0**attempt, 30.0))
        try:
            return _attempt(url, partial, client, most_bytes)
        except (_Cut, httpx.TransportError) as error:
            reason = str(error) or type(error).__name__
    raise DownloadError(f"{url}: cut {attempts} times, at last by: {reason}; run this again to go on from {partial}")


def version_of(partial: Path) -> Path:
    """The file that notes which version of the file a partial one belongs to."""
    return partial.with_name(partial.name + ".etag")


def _attempt(url: str, partial: Path, client: httpx.Client, most_bytes: int) -> None:
    version = version_of(partial)
    have = partial.stat().st_size if partial.is_file() and version.is_file() else 0
    # Without If-Range, the end of a new version could be put behind the beginning of an old one.
    asked = {"Range": f"bytes={have}-", "If-Range": version.read_text()} if have else {}
    with client.stream("GET", url, headers={"Accept-Encoding": "identity"} | asked) as response:
        if response.status_code in PASSING:
            raise _Cut(f"status {response.status_code}")
        if response.status_code not in {200, 206}:
            raise DownloadError(f"{url}: the server answers {response.status_code} {response.reason_phrase}")
        start, total = _extent(response.headers, have if response.status_code == 206 else 0)
        if start != (have if response.status_code == 206 else 0):
            partial.unlink()
            raise _Cut("the server sent another part than was asked for")
        if total is not None and total > most_bytes:
            raise DownloadError(f"{url}: {total} bytes, more than the {most_bytes} allowed; see --max-bytes")
        _note_version(version, response.headers)
        _receive(response, partial, start, total, most_bytes)


def _receive(response: httpx.Response, partial: Path, start: int, total: int | None, most_bytes: int) -> None:
    size = start
    with (
        partial.open("ab" if start else "wb") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=None, desc=partial.stem) as bar,
    ):
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > most_bytes:
                raise DownloadError(f"{response.url}: more than the {most_bytes} bytes allowed; see --max-bytes")
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and size != total:
        raise _Cut(f"{size} of {total} bytes came")


def _note_version(version: Path, headers: Mapping[str, str]) -> None:
    etag = headers.get("etag", "")
    if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
        version.write_text(etag)
    else:
        version.unlink(missing_ok=True)


def _extent(headers: Mapping[str, str], start: int) -> tuple[int, int | None]:
    """Where the bytes that come begin, and how many the whole file has."""
    unit, _, span = headers.get("content-range", "").partition(" ")
    if unit == "bytes":
        first, total = span.partition("-")[0], span.rpartition("/")[2]
        if first.isdecimal() and total.isdecimal():
            return int(first), int(total)
    length = headers.get("content-length", "")
    return start, start + int(length) if length.isdecimal() else None
