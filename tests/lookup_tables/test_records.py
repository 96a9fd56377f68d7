"""What a record says about itself."""

import pytest

from lookup_tables.records import Entry


@pytest.mark.parametrize(("route", "anchor"), [("deit_s[0:12]", "deit_s"), ("deit_ti[0:4]>deit_s[4:12]", None)])
def test_an_entry_knows_whether_it_is_one_anchor_alone(route: str, anchor: str | None) -> None:
    assert Entry(0, route, flops=1, params=1, top1=None).anchor == anchor
