"""`GET /`: the console, a page for people; all that it loads is beside it, so that no other host is needed."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from stitching.checkpoint import shipped
from stitching.families import FAMILIES

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
         ".jpg": "image/jpeg", ".png": "image/png"}  # fmt: skip
PAGE = "index.html"
MOST_SAMPLES = 24

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Kept:
    """A file in memory."""

    content: bytes
    kind: str
    tag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> "Kept":
        """With its type by its name, and a tag by its content."""
        tag = hashlib.sha256(content).hexdigest()[:20]
        return cls(content, TYPES[Path(name).suffix], f'"{tag}"')

    def answer(self, request: Request) -> Response:
        """The file, or that the client has it; it asks each time, so that a new server has no old page."""
        headers = {
            "ETag": self.tag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        if self.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers | {"Content-Type": self.kind})


class Console:
    """The page's files, and sample pictures where the family ships with some."""

    def __init__(self, family: str) -> None:
        page = [file for file in files("server").joinpath("page").iterdir() if Path(file.name).suffix in TYPES]
        self.page = {file.name: Kept.of(file.name, file.read_bytes()) for file in page}
        self.samples = {path.name: Kept.of(path.name, path.read_bytes()) for path in samples(family)}


def samples(family: str) -> list[Path]:
    """The pictures that ship beside a family's weights; none for a family whose weights do not ship."""
    if family not in FAMILIES or not shipped(family).is_file():
        return []
    return sorted(shipped(family).with_name("samples").glob("*.jpg"))[:MOST_SAMPLES]


def add_console(app: FastAPI, family: str) -> None:
    """The page's routes."""
    app.state.console = Console(family)
    app.include_router(router)


@router.get("/")
async def page(request: Request) -> Response:
    """The page itself."""
    return _console(request).page[PAGE].answer(request)


@router.get("/console/samples")
async def sample_names(request: Request) -> list[str]:
    """The names of the sample pictures."""
    return list(_console(request).samples)


@router.get("/console/samples/{name}")
async def sample(request: Request, name: str) -> Response:
    """One of them."""
    return _kept(_console(request).samples, name).answer(request)


@router.get("/console/{name}")
async def part(request: Request, name: str) -> Response:
    """What the page loads."""
    return _kept(_console(request).page, name).answer(request)


def _console(request: Request) -> Console:
    return request.app.state.console  # type: ignore[no-any-return]


def _kept(kept: dict[str, Kept], name: str) -> Kept:
    if name not in kept:
        raise HTTPException(404)
    return kept[name]
