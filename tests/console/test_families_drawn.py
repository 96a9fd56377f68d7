"""Families that ship without weights, drawn from their tables: stages, routes both ways, no top-1, many stitches."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict

import pytest

pytest.importorskip("playwright", reason="needs playwright: pip install -e '.[dev]'")

from chromium import CHROMIUM, at_size, browsing, looking
from conftest import Running, run, settings
from playwright.sync_api import Browser, Route, expect

from lookup_tables.table import LookupTable, folder
from server import anatomy
from server.schemas import StitchUsed, listed
from server.service import build
from stitching.families import FAMILIES
from stitching.unfilled import unfilled

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium in /usr/bin/chromium")
CLASSIFY = re.compile(r"/classify(\?|$)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from run(build(settings(tmp_path_factory.mktemp("cache"), profile_s=1)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as opened:
        yield opened


@pytest.mark.parametrize("family", ["swin_ti_s_b", "resnet18_swin_ti", "deit3_s_b", "deit_ti_s_b_all"])
def test_other_families_are_drawn_too(site: Running, browser: Browser, family: str) -> None:
    table = LookupTable.load(folder(family))
    entry = max(table.entries, key=lambda each: (each.route.count(">"), each.stitch))
    shown = listed(table, frontier_only=False, device="made-up").model_dump()
    for stitch in shown["stitches"]:
        stitch["latency_ms"] = stitch["flops"] / 1e9
    parts = anatomy.listed(unfilled(FAMILIES[family]), table).model_dump()
    with at_size(browser, site.url, "phone") as context, looking(context) as page:
        page.route("**/stitches", lambda route: route.fulfill(json=shown))
        page.route("**/anchors", lambda route: route.fulfill(json=parts))

        def answer(route: Route) -> None:
            content = json.loads(route.fetch(url=f"{site.url}/classify").text())
            route.fulfill(json=content | {"stitch": asdict(StitchUsed.of(entry))})

        page.route(CLASSIFY, answer)
        page.goto("/")
        expect(page.locator(".route .join")).to_have_count(entry.route.count(">"))
        expect(page.locator(".route .block")).to_have_count(sum(len(each["blocks"]) for each in parts["anchors"]))
        expect(page.locator(".frontier .point.chosen")).to_have_count(1)
        page.get_by_text("Least accuracy", exact=True).click()
        if table.frontier()[0].top1 is None:
            expect(page.locator("#budget-note")).to_contain_text("No top-1 is known")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.unroute_all(behavior="wait")
