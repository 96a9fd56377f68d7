"""The shipped tables are those of the families, and their figures the published ones."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lookup_tables.table import LookupTable, folder
from stitching.checkpoint import sha256, shipped
from stitching.families import FAMILIES, RELEASES
from stitching.flops import flops, params
from stitching.unfilled import unfilled

FIXTURES = Path(__file__).parents[1] / "fixtures" / "snnet"
PUBLISHED = {
    "deit_ti_s_b": "deit",
    "deit_ti_s_b_all": "deit_nonearest",  # without top-1
    "swin_ti_s_b": "swin",
    "levit_192_256": "levit_192_256",
    "resnet18_50": "resnet18_50",
    "resnet18_swin_ti": "resnet18_swin_ti",
    "deit3_s_l": "snnetv2_s_l",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_table_is_of_its_family(name: str) -> None:
    table, family, model = LookupTable.load(folder(name)), FAMILIES[name], unfilled(FAMILIES[name])
    whole = [stitch for stitch in model.stitches if stitch.is_whole]
    assert [(e.stitch, e.route) for e in table.entries] == [(s.id, s.route(family.anchor_names)) for s in whole]
    assert [e.params for e in table.entries] == [params(model, stitch) for stitch in whole]
    assert table.family.anchors == family.anchor_names
    assert table.family.classes == family.classes == len(table.labels)
    assert asdict(table.family.preprocessing) == asdict(family.preprocessing)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_table_names_the_weights_it_is_of(name: str) -> None:
    checkpoint = LookupTable.load(folder(name)).family.checkpoint
    if name == "digits":
        assert checkpoint
        assert checkpoint.sha256 == sha256(shipped("digits"))
    else:
        assert (checkpoint.name if checkpoint else "") == RELEASES.get(name, "").rpartition("/")[2]


@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_are_the_published_ones(name: str) -> None:
    published = {row["id"]: row for row in json.loads((FIXTURES / f"results_{PUBLISHED[name]}.json").read_text())}
    table = LookupTable.load(folder(name))
    assert len(published) == len(table.entries)
    for entry in table.entries:
        row = published[entry.stitch]
        assert entry.flops == row["flops"]
        assert entry.top1 == (pytest.approx(row["acc1"] / 100, abs=5e-6) if "acc1" in row else None)


@pytest.mark.parametrize("name", ["digits", "deit3_s_b", "deit3_b_l"])
def test_figures_that_nobody_published_are_counted(name: str) -> None:
    table = LookupTable.load(folder(name))
    chosen = table.entries[:2] + table.entries[2::30]
    model = unfilled(FAMILIES[name]).to("meta")
    assert [e.flops for e in chosen] == flops(model, [model.stitches[e.stitch] for e in chosen])


def test_where_nothing_is_published_the_table_says_so() -> None:
    for name in FAMILIES:
        table = LookupTable.load(folder(name))
        unknown = [entry for entry in table.entries if entry.top1 is None]
        assert len(unknown) in {0, len(table.entries)}
        assert table.family.top1.source.startswith("none published") == bool(unknown)


@pytest.mark.parametrize(
    "file", sorted(folder("digits").parent.glob("*/latency.*.csv")), ids=lambda file: file.parent.name
)
def test_a_latency_file_is_of_the_device_it_is_named_after_and_good_enough(file: Path) -> None:
    table = LookupTable.load(file.parent, file)
    assert table.latency
    assert file.name == f"latency.{table.latency.device}.csv"
    assert float(table.latency.details["prediction_error_median"].rstrip("%")) <= 10
    for entry in table.frontier():
        assert 0 < table.seconds(entry.stitch, 1) < table.seconds(entry.stitch, 64)
