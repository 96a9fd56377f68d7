"""From routes to modules."""

from itertools import pairwise
from pathlib import Path

import pytest

from lookup_tables.modules import INPUT, OUTPUT, Composition, Module, Segment, join, segments
from lookup_tables.table import LookupTable, folder

SMALL = LookupTable.load(Path(__file__).parent / "small").modules or Composition(())
SHIPPED = [path.parent.name for path in folder("digits").parent.glob("*/modules.csv")]


def test_a_route_is_read_into_segments() -> None:
    assert segments("a-b.c[0:4]>b[11:12]") == (Segment("a-b.c", 0, 4), Segment("b", 11, 12))


@pytest.mark.parametrize("route", ["", "a", "a[0:0]", "a[2:1]", "a[0:2]>", "a[:2]", "a[0:2]b[2:4]", "a[0:1234567]"])
def test_what_is_no_route_is_refused(route: str) -> None:
    with pytest.raises(ValueError, match="does not read like"):
        segments(route)


@pytest.mark.parametrize(
    ("route", "walk"),
    [
        ("a[0:2]", ["a.stem", "a.blocks.0", "a.blocks.1", "a.head"]),
        ("a[0:1]>b[1:2]", ["a.stem", "a.blocks.0", "stitch_layers.0.0", "b.blocks.1", "b.bare_head"]),
        ("a[0:2]>b[1:2]", ["a.stem", "a.blocks.0", "a.blocks.1", "stitch_layers.0.1", "b.blocks.1", "b.bare_head"]),
        ("b[0:1]>a[1:2]", ["b.stem", "b.blocks.0", "stitch_layers.1.0", "a.blocks.1", "a.head"]),
    ],
)
def test_a_route_walks_stem_blocks_layers_head(route: str, walk: list[str]) -> None:
    assert [step for step, _ in SMALL.walk(route)] == walk
    assert SMALL.lacks(route) is None


def test_classes_come_with_what_every_batch_passes() -> None:
    assert [kind for _, kind in SMALL.walk("a[0:1]>b[0:2]")] == [
        *("a.stem", "a.block", "a>b", "b.block.0", "b.block.1", "b.bare_head"),
    ]  # fmt: skip
    assert (SMALL.kinds[0], SMALL.kinds[-1]) == (INPUT, OUTPUT)
    assert len(SMALL.kinds) == len(set(SMALL.kinds)) == 12


@pytest.mark.parametrize(
    ("route", "missing"),
    [
        ("c[0:1]", "c.blocks.0"),
        ("a[0:3]", "a.blocks.2"),
        ("a[0:999999]", "a.blocks.2"),
        ("a[0:2]>b[0:2]", "a[:2]>b[0:]"),
        ("b[0:2]>a[1:2]", "b[:2]>a[1:]"),
    ],
)
def test_what_a_route_lacks_is_named(route: str, missing: str) -> None:
    assert SMALL.lacks(route) == missing
    with pytest.raises(ValueError, match="there is no"):
        SMALL.steps(route)


def test_blocks_count_up_to_the_first_that_is_missing() -> None:
    blocks = Composition(tuple(Module(f"a.{name}", "k") for name in ("stem", "blocks.0", "blocks.2", "head")))
    assert blocks.lacks("a[0:3]") == "a.blocks.1"
    assert blocks.lacks("a[0:1]") is None


def test_the_block_before_a_head_is_a_module_of_its_own_where_it_is_listed() -> None:
    names = ("stem", "blocks.0", "blocks.1.last", "head")
    apart = Composition(tuple(Module(f"{anchor}.{name}", name) for anchor in "ab" for name in names))
    joined = Composition((*apart.modules, Module("layer", "a>b", ("a[:1]>b[1:]", "a[:2]>b[1:]"))))
    assert [step for step, _ in apart.walk("a[0:2]")] == ["a.stem", "a.blocks.0", "a.blocks.1.last", "a.head"]
    walk = ["a.stem", "a.blocks.0", "layer", "b.blocks.1.last", "b.head"]
    assert [step for step, _ in joined.walk("a[0:1]>b[1:2]")] == walk
    assert joined.lacks("a[0:2]>b[1:2]") == "a.blocks.1", "which goes on, and so gives all tokens"
    with pytest.raises(ValueError, match=r"there is no a\.blocks\.1"):
        joined.steps("a[0:2]>b[1:2]")
    both = Composition((*joined.modules, Module("a.blocks.1", "blocks.0")))
    assert [step for step, _ in both.walk("a[0:2]>b[1:2]")][2:] == ["a.blocks.1", *walk[2:]]
    assert both.lacks("a[0:3]") == "a.blocks.2"


def test_a_join_reads_like_the_route_it_stands_in() -> None:
    assert join("deit_ti", 4, "deit_s", 5) == "deit_ti[:4]>deit_s[5:]"


@pytest.mark.parametrize("name", SHIPPED)
def test_modules_add_up_to_what_the_stitches_cost(name: str) -> None:
    table = LookupTable.load(folder(name))
    assert table.modules
    for entry in table.entries:
        passed = [table.modules.modules[place].flops for place in table.modules.steps(entry.route)]
        assert sum(cost or 0 for cost in passed) == entry.flops, entry.route


@pytest.mark.parametrize("name", SHIPPED)
def test_few_stitches_pass_every_class(name: str) -> None:
    table = LookupTable.load(folder(name))
    assert table.modules
    costs = {entry.route: entry.flops for entry in table.entries}
    chosen = table.modules.covering(costs)
    passed = {kind for route in chosen for _, kind in table.modules.walk(route)}
    assert passed == {kind for route in costs for _, kind in table.modules.walk(route)}
    assert len(chosen) <= 8
    for route in chosen:
        others = {kind for other in chosen if other != route for _, kind in table.modules.walk(other)}
        assert passed != others


def test_the_cheaper_of_two_stitches_of_the_same_classes_is_run() -> None:
    costs = {"a[0:2]>b[1:2]": 5.0, "a[0:2]": 2.0, "a[0:1]>b[1:2]": 3.0}
    assert sorted(SMALL.covering(costs)) == ["a[0:1]>b[1:2]", "a[0:2]"]


def test_a_stitch_whose_classes_others_pass_as_well_is_not_run() -> None:
    costs = {"a[0:1]>b[1:2]": 1.0, "a[0:1]>b[0:2]": 9.0, "a[0:2]": 5.0}
    assert sorted(SMALL.covering(costs)) == ["a[0:1]>b[0:2]", "a[0:2]"]


def test_the_shipped_frontier_shares_its_modules() -> None:
    table = LookupTable.load(folder("deit_ti_s_b"))
    assert table.modules
    routes = [entry.route for entry in table.frontier()]
    walks = [{step for step, _ in table.modules.walk(route)} for route in routes]
    assert len(set().union(*walks)) < sum(map(len, walks)) / 8
    assert all(a & b for a, b in pairwise(walks))
