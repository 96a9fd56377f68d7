"""The console in a real browser, at the width of a phone and of a desk: everything a user can do with it."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs playwright: pip install -e '.[dev]'")

from axe_playwright_python.sync_playwright import Axe
from chromium import CHROMIUM, SIZES, Scheme, at_size, browsing, looking
from conftest import SAMPLES, Running, run, settings
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect

from lookup_tables.modules import segments
from server.service import build

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium in /usr/bin/chromium")
PICTURES = Path(__file__).parents[2] / "runs" / "console"
CLASSIFY = re.compile(r"/classify(\?|$)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from run(build(settings(tmp_path_factory.mktemp("cache"), profile_s=1)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module", params=list(SIZES))
def context(site: Running, browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    with at_size(browser, site.url, request.param) as opened:
        yield opened


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    with looking(context) as opened:
        opened.goto("/")
        expect(opened.locator("#said")).to_contain_text("by stitch")
        yield opened


def stitch_of(page: Page) -> int:
    found = re.search(r"by stitch (\d+)", page.locator("#said").inner_text())
    assert found
    return int(found[1])


def asking_with(header: str, value: str) -> Callable[[Request], bool]:
    """Whether it asks for a class with that header."""
    return lambda request: CLASSIFY.search(request.url) is not None and request.headers.get(header) == value


def test_an_answer_says_what_who_why_and_where_the_time_went(page: Page, site: Running) -> None:
    expect(page.locator("#answer .classes li")).to_have_count(5)
    expect(page.locator("#answer .classes .number").first).to_contain_text("%")
    for text in ("Stitch", "Cost", "Top-1", "Why", "best stitch within"):
        expect(page.locator("#answer .facts")).to_contain_text(text)
    expect(page.locator("#answer .key li")).to_have_text(
        [re.compile(stage) for stage in ("decode", "queue", "compute", "rest")]
    )
    expect(page.locator("#server")).to_contain_text("digits")
    expect(page).to_have_title("digits · stitchserve")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"


def test_images_come_by_sample_file_drop_and_paste(page: Page) -> None:
    best = page.locator("#answer .best .label")
    page.locator("#budget").press("End")
    page.get_by_label("Sample 44").click()
    expect(best).to_have_text("44")
    page.locator("#file").set_input_files(SAMPLES / "20.jpg")
    expect(best).to_have_text("20")
    expect(page.locator("#preview")).to_have_attribute("alt", re.compile("20.jpg"))
    for kind, name, member in (("drop", "47", "dataTransfer"), ("paste", "60", "clipboardData")):
        page.evaluate(
            """async ([kind, name, member]) => {
              const blob = await (await fetch(`console/samples/${name}.jpg`)).blob();
              const data = new DataTransfer();
              data.items.add(new File([blob], `${name}.jpg`, { type: "image/jpeg" }));
              const Kind = kind === "drop" ? DragEvent : ClipboardEvent;
              document.querySelector("#drop").dispatchEvent(new Kind(kind, { bubbles: true, [member]: data }));
            }""",
            [kind, name, member],
        )
        expect(best).to_have_text(name)
    page.locator("#file").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"no image"})
    expect(page.locator("#image-note")).to_contain_text("not an image")


def test_two_digits_can_be_drawn(page: Page) -> None:
    page.locator("#budget").press("End")
    page.get_by_role("button", name="Draw digits").click()
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    assert box
    strokes = [
        [(0.15, 0.25), (0.38, 0.25), (0.25, 0.8)],
        [(0.62, 0.3), (0.6, 0.55), (0.88, 0.55)],
        [(0.78, 0.25), (0.78, 0.85)],
    ]
    with page.expect_request(asking_with("content-type", "image/png")):
        for stroke in strokes:
            for at, (x, y) in enumerate(stroke):
                page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6)
                if not at:
                    page.mouse.down()
            page.mouse.up()
    expect(page.locator("#answer .best .label")).to_have_text("74")
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Sample 44").click()
    expect(page.locator("#pad")).to_be_hidden()


def test_the_slider_asks_again_one_request_at_a_time(page: Page) -> None:
    open_now: set[object] = set()
    asked: list[str] = []
    most = 0

    def begun(request: Request) -> None:
        nonlocal most
        if CLASSIFY.search(request.url):
            asked.append(request.url)
            open_now.add(request)
            most = max(most, len(open_now))

    page.on("request", begun)
    page.on("requestfinished", lambda request: open_now.discard(request))  # noqa: PLW0108 - it sets an attribute on it
    slider, snippet = page.locator("#budget"), page.locator("#snippet")
    for unit, term in (("FLOPs", "FLOPs"), ("Milliseconds", "ms"), ("Least accuracy", "%25")):
        page.get_by_text(unit, exact=True).first.click()
        slider.press("Home")
        for _ in range(12):
            slider.press("ArrowRight")
        slider.press("ArrowLeft")
        wanted = re.search(r"budget=([^']+)", snippet.inner_text())
        assert wanted
        assert wanted[1].endswith(term)
        loaded = "wanted => performance.getEntriesByType('resource').some(e => e.name.endsWith(wanted))"
        page.wait_for_function(loaded, arg=wanted[1])
        expect(slider).to_have_attribute("aria-valuetext", re.compile(r"\d"))
    assert most == 1
    assert len(asked) < 3 * 12, "not each step of the way is asked for"


def test_a_server_that_is_busy_is_asked_again_later(page: Page) -> None:
    refused: list[str] = []
    said: list[str] = []

    def once(route: Route) -> None:
        if not refused:
            refused.append(route.request.url)
            problem = {"title": "Overloaded", "status": 503, "detail": "come back later"}
            headers = {"Retry-After": "1"}
            route.fulfill(status=503, headers=headers, json=problem, content_type="application/problem+json")
            return
        if said:
            route.fallback()
            return
        said.append(page.locator("#answer .problem").inner_text())
        route.continue_(url=route.request.url + ("&" if "?" in route.request.url else "?") + "deadline_ms=5000")

    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")  # nor is the first image compared any more
    page.route(CLASSIFY, once)
    page.get_by_label("Sample 52").click()
    expect(page.locator("#answer .best .label")).to_have_text("52")
    assert len(refused) == 1
    assert "come back later" in said[0]


def test_the_route_is_lit_and_told(page: Page, site: Running) -> None:
    page.locator(".route .join").first.wait_for()
    entry = site.service.table.entry(stitch_of(page))
    parts = segments(entry.route)
    expect(page.locator(".route .block.lit")).to_have_count(sum(part.stop - part.start for part in parts))
    expect(page.locator(".route .block")).to_have_count(24)
    expect(page.locator(".route .join")).to_have_count(len(parts) - 1)
    read = page.locator("#route-read")
    page.locator(".route .block").nth(9).hover()
    expect(read).to_have_text(re.compile(r"digits_m, block 1 · 2\.\d+ MFLOPs · 48 wide · \d.* ms"))
    page.locator(".route .part").first.focus()
    page.keyboard.press("ArrowRight")
    expect(read).to_contain_text("digits_s, block 0")
    page.keyboard.press("ArrowDown")
    expect(read).to_contain_text("digits_m, block 0")
    page.locator(".route .join").first.focus()
    expect(read).to_have_text(re.compile(r"Stitching layer, digits_\w to digits_\w · .*FLOPs · \d+ → \d+ wide"))


def test_three_stitches_side_by_side(page: Page, site: Running) -> None:
    frontier = site.service.table.frontier()
    columns = page.locator("#compare .column")
    expect(columns).to_have_count(3)
    for at, stitch in ((0, frontier[0].stitch), (1, stitch_of(page)), (2, frontier[-1].stitch)):
        expect(columns.nth(at)).to_contain_text(f"Stitch {stitch} ·")
        expect(columns.nth(at).locator(".classes li")).to_have_count(3)


def test_a_point_of_the_frontier_is_pinned_and_let_go(page: Page, site: Running) -> None:
    table = site.service.table
    expect(page.locator(".frontier .point")).to_have_count(len(table.entries))
    expect(page.locator(".frontier .front")).to_have_count(len(table.frontier()))
    expect(page.locator(".frontier .level")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Stitch 5,")).click()
    expect(page.locator("#said")).to_contain_text("by stitch 5:")
    expect(page.locator("#pin")).to_contain_text("Stitch 5 is pinned")
    expect(page.locator("#compare")).to_contain_text("Pinned")
    page.get_by_role("button", name="Unpin").click()
    expect(page.locator("#said")).not_to_contain_text("by stitch 5:")
    first = page.locator(".frontier .front[tabindex='0']")
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    second = table.frontier()[1].stitch
    expect(page.locator("#said")).to_contain_text(f"by stitch {second}:")
    expect(page.locator(".frontier [aria-pressed='true']")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("#pin")).to_be_hidden()
    page.get_by_text("Latency", exact=True).click()
    expect(page.locator(".frontier")).to_contain_text("ms for one image")


def test_a_burst_lowers_the_level_and_can_be_stopped(page: Page, site: Running) -> None:
    expect(page.locator("#health-text")).to_have_text("ready")
    expect(page.locator("#charts figcaption")).to_have_text(
        [
            re.compile(name)
            for name in ("Load.*images/s", "Queue.*waiting", "Level.*stitch 2,", "Top-1 served.*%", "SLO met.*%")
        ]
    )
    controller = site.service.controller
    patient, controller.slo = controller.slo, 0.15
    try:
        page.get_by_role("button", name="Send a burst").click()
        expect(page.locator(".chart", has_text="Level")).not_to_contain_text("stitch 2,")
        expect(page.locator("#burst-note")).to_contain_text("answered")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#burst-note")).to_contain_text("Done")
    finally:
        controller.slo = patient
    page.get_by_label("Sample 44").click()
    expect(page.locator(".chart", has_text="Level")).to_contain_text("stitch 2,")


def test_the_request_runs_as_it_is_copied(page: Page) -> None:
    for language, said in (("curl", '"digits_'), ("Python", "digits_"), ("tritonclient", ":17:17")):
        page.get_by_text(language, exact=True).click()
        page.get_by_role("button", name="Copy").click()
        expect(page.locator("#copy")).to_have_text("Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        command = ["sh", "-c", copied] if language == "curl" else [sys.executable, "-c", copied]
        done = subprocess.run(command, cwd=SAMPLES, capture_output=True, text=True, timeout=120, check=False)
        assert said in done.stdout, done.stderr
        assert "17" in done.stdout
        expect(page.locator("#copy")).to_have_text("Copy")


def test_a_key_is_sent_and_not_kept(page: Page) -> None:
    page.get_by_text("API key", exact=True).click()
    with page.expect_request(asking_with("authorization", "Bearer secret")):
        page.locator("#key").fill("secret")
        page.locator("#key").press("Tab")
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    expect(page.locator("#snippet")).to_contain_text("YOUR_KEY")
    expect(page.locator("#snippet")).not_to_contain_text("secret")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_axe_finds_nothing_serious(site: Running, browser: Browser, size: str, scheme: Scheme) -> None:
    with at_size(browser, site.url, size, scheme) as context, looking(context) as page:
        page.goto("/")
        page.locator(".route .join").first.wait_for()
        expect(page.locator("#compare .column").nth(2).locator(".best")).to_be_visible()
        page.get_by_role("button", name=re.compile("^Stitch 5,")).press("Enter")
        expect(page.locator("#pin")).to_be_visible()
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{size}-{scheme}.png", full_page=True)
        found = Axe().run(page).response["violations"]
        assert [
            (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
        ] == []
