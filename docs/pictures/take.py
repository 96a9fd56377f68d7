"""Takes the two pictures of the console from a server of its own: python docs/pictures/take.py"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
MOST_BYTES = 300_000


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server that has started."""
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--slo-ms", "300"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = (re.search(r"serving on (\S+)", line) for line in process.stderr)
        yield next(found[1] for found in lines if found)
        process.terminate()
        process.stderr.read()


def keep(page: Page, name: str, selector: str | None = None) -> None:
    """The picture of the page's first screen, or of an element."""
    path = HERE / name
    taken = page.locator(selector).screenshot() if selector else page.screenshot()
    Image.open(BytesIO(taken)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path}: {size} bytes are more than {MOST_BYTES}")
    print(path, size)


def main() -> None:
    """A page at rest, then one under its own burst."""
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=1)
        page.goto(url)
        page.locator("#compare .column").nth(2).locator(".best").wait_for()
        page.wait_for_timeout(15_000)  # some quiet seconds in the charts
        keep(page, "frontier.png", "#frontier")
        page.locator("#burst").click()
        page.wait_for_timeout(14_000)  # a burst, and some seconds after it
        page.set_viewport_size({"width": 1280, "height": 2000})
        page.locator("#burst").click()
        page.wait_for_timeout(6_000)
        keep(page, "console.png", "main")
        browser.close()


if __name__ == "__main__":
    main()
