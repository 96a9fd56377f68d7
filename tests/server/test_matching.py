"""A table is taken for a model's only where it is one of it."""

from dataclasses import replace

import pytest

import stitching
from lookup_tables.modules import Composition
from lookup_tables.table import LookupTable, TableError, folder
from server.matching import check
from stitching import SNNet


@pytest.fixture(scope="module")
def model() -> SNNet:
    return stitching.load("digits")


def test_the_shipped_table_is_the_shipped_networks(model: SNNet) -> None:
    check(model, LookupTable.load(folder("digits")))


def test_a_table_of_another_family_is_refused(model: SNNet) -> None:
    with pytest.raises(TableError, match=r"stitch 0 is deit_ti\[0:12\], but digits_s"):
        check(model, LookupTable.load(folder("deit_ti_s_b")))


def test_a_table_with_other_preprocessing_is_refused(model: SNNet) -> None:
    table = LookupTable.load(folder("digits"))
    family = replace(table.family, preprocessing=replace(table.family.preprocessing, size=32))
    with pytest.raises(TableError, match="preprocessing"):
        check(model, replace(table, family=family))


def test_a_table_that_lists_other_modules_is_refused(model: SNNet) -> None:
    table = LookupTable.load(folder("digits"))
    assert table.modules
    first, *others = table.modules.modules
    renamed = replace(table, modules=Composition((replace(first, kind="another"), *others)))
    with pytest.raises(TableError, match=r"by modules\.csv stitch 0 passes other modules .* or remove that file"):
        check(model, renamed)
