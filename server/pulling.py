"""`stitchserve pull`: fetches a family's released checkpoint and checks it."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliPositionalArg

from server.download import DownloadError, download, version_of
from stitching.checkpoint import load, sha256
from stitching.families import RELEASES, family

TIMEOUT_S = 30.0


class Pull(BaseModel):
    """Download a family's released checkpoint, go on where it was cut, check that it loads, and note its sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: CliPositionalArg[str] = Field(description="family whose checkpoint to fetch")
    out: Path = Field(Path(), description="folder for the file")
    url: str | None = Field(None, description="where to fetch it from; none: where it was released")
    max_bytes: int = Field(4_000_000_000, ge=1, description="largest file to accept")
    attempts: int = Field(5, ge=1, le=100, description="how often a transfer that is cut is taken up again")

    def cli_cmd(self) -> None:
        """Fetch, check, rename, and say where."""
        named = family(self.family)
        url = self.url or RELEASES.get(named.name)
        if url is None:
            raise DownloadError(f"family {named.name!r} was never released as a file; there are {', '.join(RELEASES)}")
        path = self.out / Path(urlsplit(url).path).name
        noted = path.with_name(path.name + ".sha256")
        if path.is_file() and noted.is_file() and noted.read_text().split()[0] == sha256(path):
            print(f"{path} is already here, as fetched")
            return
        self.out.mkdir(parents=True, exist_ok=True)
        partial = path.with_stem(path.stem + ".part")
        with httpx.Client(follow_redirects=True, timeout=TIMEOUT_S) as client:
            download(url, partial, client, most_bytes=self.max_bytes, attempts=self.attempts)
        try:
            load(self.family, partial)
        except ValueError:
            partial.unlink()
            version_of(partial).unlink(missing_ok=True)
            raise
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        noted.write_text(f"{sha256(partial)}  {path.name}\n")
        partial.replace(path)
        version_of(partial).unlink(missing_ok=True)
        print(f"{path}\nserve it: stitchserve serve --family {self.family} --checkpoint {path}")
