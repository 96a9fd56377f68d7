"""What is written reads back equal, and no reader meets half a file."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookup_tables.latency import ModuleMeasurement
from lookup_tables.modules import Composition, Module
from lookup_tables.reader import read_family, read_latency, read_modules, read_stitches
from lookup_tables.records import Checkpoint, Entry, TableError
from lookup_tables.table import Latency, LookupTable, Measurement
from lookup_tables.writer import (
    latency_path,
    write_family,
    write_labels,
    write_latency,
    write_modules,
    write_stitches,
)

SMALL = LookupTable.load(Path(__file__).parent / "small")

segments = st.builds("{}[{}:{}]".format, st.sampled_from("ab"), st.integers(0, 5), st.integers(6, 12))
entries = st.lists(
    st.builds(
        Entry,
        stitch=st.integers(0, 10**6),
        route=st.lists(segments, min_size=1, max_size=3).map(">".join),
        flops=st.integers(1, 10**15 - 1),
        params=st.integers(0, 10**15 - 1),
        top1=st.none() | st.floats(0, 1) | st.integers(0, 323).map(lambda n: float(f"1.2345678901234567e-{n}") / 2),
    ),
    min_size=1,
    unique_by=lambda entry: entry.stitch,
)
seconds = st.tuples(st.floats(1e-12, 1e6), st.floats(1e-12, 1e6)).map(sorted)
measured = st.dictionaries(
    st.tuples(st.sampled_from([0, 1, 4]), st.integers(1, 999)), st.tuples(seconds, st.integers(1, 999)), min_size=1
)
of_modules = st.fixed_dictionaries(
    {
        module: st.dictionaries(st.integers(1, 999), st.tuples(seconds, st.integers(1, 999)), min_size=1)
        for module in ("a.block", "a>b.2")
    }
)
names = st.text("abAB01_.-", min_size=1).filter(lambda name: name[0] not in "_.-")
places = st.builds("{}[:{}]>{}[{}:]".format, names, st.integers(0, 99), names, st.integers(0, 99))
modules_drawn = st.builds(
    Module,
    names,
    names,
    st.lists(places, max_size=3, unique=True).map(tuple),
    st.none() | st.integers(0, 10**15 - 1),
)
words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1)
details = st.dictionaries(words.filter(lambda w: ":" not in w and w not in ("schema", "device")), words)


@given(entries)
@settings(deadline=None, max_examples=50)
def test_stitches_read_back_equal(tmp_path_factory: pytest.TempPathFactory, drawn: list[Entry]) -> None:
    path = write_stitches(tmp_path_factory.mktemp("written"), drawn)
    assert read_stitches(path, ("a", "b")) == tuple(sorted(drawn, key=lambda entry: entry.stitch))


@given(measured, details)
@settings(deadline=None, max_examples=50)
def test_latency_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: dict[tuple[int, int], tuple[list[float], int]],
    said: dict[str, str],
) -> None:
    measurements = tuple(Measurement(*pair, p50, p99, runs) for pair, ((p50, p99), runs) in sorted(drawn.items()))
    latency = Latency("cpu-test", measurements, said)
    path = write_latency(tmp_path_factory.mktemp("written"), latency)
    assert read_latency(path, frozenset({0, 1, 4})) == latency


@given(measured, of_modules)
@settings(deadline=None, max_examples=50)
def test_latency_of_modules_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: dict[tuple[int, int], tuple[list[float], int]],
    of_each: dict[str, dict[int, tuple[list[float], int]]],
) -> None:
    measurements = tuple(Measurement(*pair, p50, p99, runs) for pair, ((p50, p99), runs) in sorted(drawn.items()))
    modules = tuple(
        ModuleMeasurement(module, batch, p50, p99, runs)
        for module, by_batch in sorted(of_each.items())
        for batch, ((p50, p99), runs) in sorted(by_batch.items())
    )
    latency = Latency("cpu-test", measurements, {}, modules)
    path = write_latency(tmp_path_factory.mktemp("written"), latency)
    assert read_latency(path, frozenset({0, 1, 4}), frozenset(of_each)) == latency


@given(st.lists(modules_drawn, max_size=9))
@settings(deadline=None, max_examples=50)
def test_modules_read_back_equal(tmp_path_factory: pytest.TempPathFactory, drawn: list[Module]) -> None:
    taken: set[str] = set()
    modules = []
    for module in drawn:
        if not taken & {module.step, *module.joins} and module.kind not in ("input", "output"):
            taken |= {module.step, *module.joins}
            modules.append(module)
    composition = Composition(tuple(modules))
    assert read_modules(write_modules(tmp_path_factory.mktemp("written"), composition), ()) == composition


@pytest.mark.parametrize("checkpoint", [None, Checkpoint("w.pth"), SMALL.family.checkpoint])
def test_a_family_reads_back_equal(tmp_path: Path, checkpoint: Checkpoint | None) -> None:
    family = replace(SMALL.family, checkpoint=checkpoint)
    assert read_family(write_family(tmp_path, family)) == family


def test_a_whole_table_reads_back_equal(tmp_path: Path) -> None:
    write_family(tmp_path, SMALL.family)
    write_labels(tmp_path / "labels.txt", SMALL.labels)
    write_stitches(tmp_path, SMALL.entries)
    assert SMALL.modules
    write_modules(tmp_path, SMALL.modules)
    assert LookupTable.load(tmp_path) == SMALL


def test_percent_and_milliseconds_are_written_as_people_read_them(tmp_path: Path) -> None:
    stitches = write_stitches(tmp_path, [Entry(0, "a[0:2]", 100, 10, 0.70564), Entry(1, "b[0:2]", 200, 20, 1.0)])
    assert stitches.read_text().splitlines()[1:] == ["0,a[0:2],100,10,70.564", "1,b[0:2],200,20,100"]
    latency = write_latency(tmp_path, Latency("cpu-x", (Measurement(0, 8, 0.0123, 1.5, 30),), {"dtype": "float32"}))
    assert latency == tmp_path / "latency.cpu-x.csv"
    assert latency.read_text().splitlines() == [
        "# schema: 1",
        "# device: cpu-x",
        "# dtype: float32",
        "stitch,batch,p50_ms,p99_ms,runs",
        "0,8,12.3,1500,30",
    ]


def test_writing_again_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_stitches(tmp_path, SMALL.entries)
    write_stitches(tmp_path, SMALL.entries[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["stitches.csv"]
    assert len(read_stitches(tmp_path / "stitches.csv", ("a", "b"))) == 2


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.txt", ["old"])
    with pytest.raises(UnicodeEncodeError):
        write_stitches(tmp_path, [Entry(0, "\ud800[0:2]", 1, 1, None)])
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]


@pytest.mark.parametrize("device", ["", "../cpu", "CPU", "cpu test", "cpu-", "c" * 101])
def test_a_device_that_is_no_slug_has_no_file(tmp_path: Path, device: str) -> None:
    with pytest.raises(TableError, match="is not a name such as"):
        latency_path(tmp_path, device)


@pytest.mark.parametrize(
    ("key", "value"),
    [("a:b", "c"), ("", "c"), ("a", "two\nlines"), (" a", "c"), ("a", "c "), ("device", "x"), ("schema", "2")],
)
def test_details_that_do_not_fit_a_line_are_refused(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(TableError, match="does not fit a line"):
        write_latency(tmp_path, Latency("cpu-x", (Measurement(0, 1, 0.1, 0.1, 3),), {key: value}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", ["", " ", "two\nlines", "\x1b[2J"])
def test_a_label_that_is_no_line_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(TableError, match="cannot stand on a line"):
        write_labels(tmp_path / "labels.txt", ["fine", label])
