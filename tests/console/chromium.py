"""A real Chromium that looks at a real server, and what it must never have seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
SIZES: dict[str, ViewportSize] = {
    "phone": {"width": 390, "height": 844},
    "desktop": {"width": 1280, "height": 900},
}
Scheme = Literal["light", "dark"]
EXPECTED = "Failed to load resource: the server responded with a status of 50"
"""What Chromium says of a refusal for load, whatever the page makes of it."""


@contextmanager
def browsing() -> Iterator[Browser]:
    """The browser."""
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """What a page said in error, and asked for."""

    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(EXPECTED):
            self.faults.append(text)


@contextmanager
def at_size(browser: Browser, url: str, size: str, scheme: Scheme = "light") -> Iterator[BrowserContext]:
    """A window of that size, that resolves addresses from `url`."""
    context = browser.new_context(
        viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone", reduced_motion="reduce", base_url=url
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(30_000)
    yield context
    context.close()


@contextmanager
def looking(context: BrowserContext) -> Iterator[Page]:
    """A page that has not been opened; what it said in error, or asked of another host than its own, fails."""
    page, watched = context.new_page(), Watched()
    watched.watch(page)
    yield page
    page.close()
    assert watched.faults == []
    assert len({urlsplit(url).netloc for url in watched.asked if urlsplit(url).scheme not in ("data", "blob")}) == 1
