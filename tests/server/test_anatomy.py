"""What stitches are made of, as the server tells it."""

from dataclasses import replace
from itertools import pairwise

import httpx
import pytest

from lookup_tables.modules import segments
from lookup_tables.table import LookupTable, folder
from server.anatomy import listed
from stitching.families import FAMILIES
from stitching.unfilled import unfilled


def test_the_parts_of_a_stitch_add_up_to_its_cost(client: httpx.Client) -> None:
    anatomy, table = client.get("/anchors").json(), client.get("/stitches").json()
    anchors = {each["name"]: each for each in anatomy["anchors"]}
    joins = {place: each for each in anatomy["joins"] for place in each["places"]}
    for stitch in table["stitches"]:
        parts = segments(stitch["name"])
        total = anchors[parts[0].anchor]["stem"]["flops"] + anchors[parts[-1].anchor]["head"]["flops"]
        for part in parts:
            total += sum(block["flops"] for block in anchors[part.anchor]["blocks"][part.start : part.stop])
        for front, end in pairwise(parts):
            total += joins[f"{front.anchor}[:{front.stop}]>{end.anchor}[{end.start}:]"]["flops"]
        assert total == stitch["flops"], stitch["name"]
    assert [block["width"] for block in anchors["digits_m"]["blocks"]] == [48] * 8
    assert all(block["latency_ms"] > 0 for anchor in anchors.values() for block in anchor["blocks"])
    assert {(each["width_in"], each["width_out"]) for each in joins.values()} == {(24, 48), (48, 96)}


@pytest.mark.parametrize("name", ["resnet18_50", "levit_192_256"])
def test_every_family_has_its_parts_without_costs_that_are_not_known(name: str) -> None:
    table = LookupTable.load(folder(name))
    assert table.modules
    known = [block.flops for anchor in listed(unfilled(FAMILIES[name]), table).anchors for block in anchor.blocks]
    assert all(known)
    anatomy = listed(unfilled(FAMILIES[name]), replace(table, modules=None))
    assert [anchor.name for anchor in anatomy.anchors] == list(table.family.anchors)
    blocks = [block for anchor in anatomy.anchors for block in anchor.blocks]
    assert {(block.flops, block.latency_ms) for block in blocks} == {(None, None)}
    assert {block.stage for block in blocks} >= {0, 1, 2}
    places = {place for each in anatomy.joins for place in each.places}
    for entry in table.entries:
        parts = segments(entry.route)
        for front, end in pairwise(parts):
            assert f"{front.anchor}[:{front.stop}]>{end.anchor}[{end.start}:]" in places


def test_it_takes_no_query(client: httpx.Client) -> None:
    assert client.get("/anchors?family=digits").status_code == 422
