"""Every fault of a file from outside is refused with file, line, reason and remedy."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lookup_tables.reader import LARGEST_FILE
from lookup_tables.table import LookupTable, TableError

SMALL = Path(__file__).parent / "small"
LATENCY = "latency.cpu-test.csv"
MODULES = "latency.cpu-modules.csv"
FILES = ["family.json", "labels.txt", "stitches.csv", "modules.csv", LATENCY, MODULES]
REMEDY = {
    "family.json": "correct it",
    "labels.txt": "correct it",
    "stitches.csv": "stitchserve evaluate",
    "modules.csv": "stitchserve evaluate",
    LATENCY: "stitchserve profile",
    MODULES: "stitchserve profile",
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return shutil.copytree(SMALL, tmp_path / "tables" / "small")


def refusal(table: Path, latency: str = LATENCY) -> str:
    with pytest.raises(TableError) as caught:
        LookupTable.load(table, table / latency)
    return str(caught.value)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("stitches.csv", "flops,", "", "line 1: missing column flops"),
        ("stitches.csv", "params,top1", "params,params,top1", "line 1: a column appears twice"),
        ("stitches.csv", "1,b[0:2]", "0,b[0:2]", "line 3: stitch 0 comes after 0: ids must ascend"),
        ("stitches.csv", "3,a[0:1]", "1,a[0:1]", "line 5: stitch 1 comes after 2: ids must ascend"),
        ("stitches.csv", "0,a[0:2]", "-1,a[0:2]", "line 2: stitch '-1' is not an integer of at least 0"),
        ("stitches.csv", "0,a[0:2]", "x,a[0:2]", "line 2: stitch 'x' is not an integer"),
        ("stitches.csv", ",400,", ",400.5,", "line 3: flops '400.5' is not an integer of at least 1"),
        ("stitches.csv", ",400,", ",4_0,", "line 3: flops '4_0' is not an integer"),
        ("stitches.csv", ",400,", ",0,", "line 3: flops '0' is not an integer of at least 1"),
        ("stitches.csv", ",400,", f",{'9' * 5000},", f"line 3: flops '{'9' * 40}' is not an integer of at least 1"),
        ("stitches.csv", ",400,", ",inf,", "line 3: flops 'inf' is not an integer"),
        ("stitches.csv", ",40,", ",-40,", "line 3: params '-40' is not an integer of at least 0"),
        ("stitches.csv", ",90", ",100.1", "line 3: top1 '100.1' is not a number from 0 to 100"),
        ("stitches.csv", ",90", ",-1", "line 3: top1 '-1' is not a number from 0 to 100"),
        ("stitches.csv", ",90", ",nan", "line 3: top1 'nan' is not a number from 0 to 100"),
        ("stitches.csv", ",90", ",1e999", "line 3: top1 '1e999' is not a number from 0 to 100"),
        ("stitches.csv", "1,b[0:2],400,40,90", "1,b[0:2],400,40", "line 3: 4 cells for 5 columns"),
        ("stitches.csv", "1,b[0:2],400,40,90", '1,"b[0:2]', "line 7: not CSV: unexpected end of data"),
        ("stitches.csv", "1,b[0:2]", "1,b[0-2]", "line 3: route 'b[0-2]' does not read like"),
        ("stitches.csv", "1,b[0:2]", "1,b[2:2]", "line 3: route 'b[2:2]' does not read like"),
        (
            "stitches.csv",
            "1,b[0:2]",
            "1,c[0:2]",
            "line 3: route 'c[0:2]' names an anchor that family.json does not (a, b)",
        ),
        (LATENCY, "4,4,30", "9,4,30", "line 11: stitch 9 is not in stitches.csv"),
        (LATENCY, "4,4,30", "4,1,30", "line 11: stitch 4 at batch 1 appears twice"),
        (LATENCY, "4,4,30,33", "4,4,0,33", "line 11: p50_ms '0' is not positive"),
        (LATENCY, "4,4,30,33", "4,4,-30,33", "line 11: p50_ms '-30' is not a number from 0"),
        (LATENCY, "4,4,30,33", "4,4,30,29.9", "line 11: p99_ms is less than p50_ms"),
        (LATENCY, "4,4,30,33", "4,4,30,NaN", "line 11: p99_ms 'NaN' is not a number"),
        (LATENCY, "4,4,30,33", "4,0,30,33", "line 11: batch '0' is not an integer of at least 1"),
        (LATENCY, "4,4,30,33,30", "4,4,30,33,0", "line 11: runs '0' is not an integer of at least 1"),
        (LATENCY, "batch,", "", "line 5: missing column batch"),
        (LATENCY, "# schema: 1", "# schema: 2", "`# schema: 1` is missing or another"),
        (LATENCY, "# schema: 1\n", "", "`# schema: 1` is missing or another"),
        (LATENCY, "# dtype: float32", "# dtype float32", "line 3: a comment must read `# key: value`"),
        (LATENCY, "# dtype: float32", "# threads: 1", "line 4: a comment must read `# key: value`, each key once"),
        (LATENCY, "# dtype: float32", "# dtype: \x1b[2J", "line 3: a comment must read `# key: value`"),
        (LATENCY, "cpu-test", "../cpu", "device '../cpu' is not a name"),
        (MODULES, "a.block,,1", "c.block,,1", "line 5: module 'c.block' is not in modules.csv"),
        (MODULES, "a.block,,1", "a.block,0,1", "line 5: a row is of a stitch or of a module, not of both"),
        (MODULES, "a.block,,1", "a.block,,4", "line 6: module a.block at batch 4 appears twice"),
        (MODULES, "a.block,,1,2", "a.block,,1,0", "line 5: p50_ms '0' is not positive"),
        (MODULES, "b.head,,1,0.75,0.8,30\nb.head,,4,0.75,0.8,30\n", "", "nothing measured of module b.head"),
        (MODULES, "input,,1,0.5,0.6,30\ninput,,4,1,1.2,30\n", "", "nothing measured of module input"),
        (MODULES, ",4,1,25", ",5,1,25", "line 29: stitch 5 is not in stitches.csv"),
        (MODULES, ",4,1,25", ",,1,25", "line 29: stitch '' is not an integer"),
        ("modules.csv", "joins", "join", "line 1: missing column joins"),
        ("modules.csv", "a.stem,a", "a stem,a", "line 2: step 'a stem' is not a name"),
        ("modules.csv", "a.stem,a.stem,", ",a.stem,", "line 2: step '' is not a name"),
        ("modules.csv", "a.stem,a.stem,", "a.stem,,", "line 2: module '' is not a name"),
        ("modules.csv", "a.stem,a.stem,", "a.stem,input,", "line 2: module 'input' is not a name"),
        ("modules.csv", "a.stem,a.stem,", "a.stem,launch,", "line 2: module 'launch' is not a name"),
        ("modules.csv", "a.stem,a.stem,", "a.stem,\x1b[2J,", "line 2: module '\\x1b[2J' is not a name"),
        ("modules.csv", "a.stem,a.stem,", "a.stem,a.stem,a>b", "line 2: joins 'a>b' does not read like"),
        ("modules.csv", "a.blocks.1,a.block", "a.blocks.0,a.block", "a.blocks.0 appears twice"),
        ("modules.csv", ",,100", ",,1e2", "line 2: flops '1e2' is not an integer of at least 0"),
        ("modules.csv", "a[:2]>b[1:]", "a[:1]>b[1:]", "a[:1]>b[1:] appears twice"),
        ("modules.csv", "b.head,b.head,,107\n", "", "no b.head, which stitch 1 passes"),
        ("modules.csv", "b.blocks.1", "b.blocks.2", "no b.blocks.1, which stitch 1 passes"),
        ("modules.csv", "a.blocks.1,a.block,,102\n", "", "no a.blocks.1, which stitch 0 passes"),
        ("modules.csv", ",a[:2]>b[1:]", ",", "no a[:2]>b[1:], which stitch 4 passes"),
        ("labels.txt", "one\n", "\n", "line 1: a label must be printable and not empty"),
        ("labels.txt", "one\n", "o\x1b[2Jne\n", "line 1: a label must be printable and not empty"),
        ("labels.txt", "one\n", "", "2 labels for 3 classes"),
        ("family.json", '"schema": 1', '"schema": 2', "schema: Input should be 1 (found 2)"),
        ("family.json", '"family": "small",', "", "family: Field required"),
        ("family.json", '"small"', '"../small"', "family: String should match pattern"),
        ("family.json", '"classes": 3', '"classes": "3"', "classes: Input should be a valid integer"),
        ("family.json", '"classes": 3', '"classes": 3, "clases": 3', "clases: Unexpected keyword argument"),
        ("family.json", '["a", "b"]', '["a", "a"]', "anchors: a name appears twice"),
        ("family.json", '["a", "b"]', "[]", "anchors: "),
        ("family.json", '"crop": 1.0', '"crop": 1.5', "preprocessing.crop: Input should be less than"),
        ("family.json", "0.2, 0.25, 1]", "0.2, 0.25]", "preprocessing.std"),
        ("family.json", "0.2, 0.25, 1]", "0.2, 0.25, 0]", "preprocessing.std.2: Input should be greater than 0"),
        ("family.json", "0.5, 0.4", "NaN, 0.4", "preprocessing.mean.0: Input should be a finite number"),
        ("family.json", "bicubic", "bicubical", "preprocessing.interpolation"),
        ("family.json", "small.safetensors", "../../weights", "checkpoint.name"),
        ("family.json", "0123456789abcdef0", "0", "checkpoint.sha256"),
        ("family.json", '"schema"', "schema", "Invalid JSON: "),
        ("family.json", "{", "[" * 100_000, "Invalid JSON: recursion limit exceeded"),
        ("family.json", "{", "[] {", "Invalid JSON: trailing characters"),
    ],
)
def test_a_fault_is_told(table: Path, file: str, old: str, new: str, reason: str) -> None:
    edit(table / file, old, new)
    message = refusal(table, file if file in (LATENCY, MODULES) else LATENCY)
    separator = ", " if reason.startswith("line") else ": "
    assert message.startswith(f"{table / file}{separator}{reason}")
    assert REMEDY[file] in message.rpartition("; ")[2]
    assert len(message) < 500 + len(str(table))


def test_flops_of_modules_may_be_unknown(table: Path) -> None:
    whole = LookupTable.load(table).modules
    assert whole
    assert [module.flops for module in whole.modules] == [*range(100, 111), None]
    file = table / "modules.csv"
    file.write_text("".join(line.rpartition(",")[0] + "\n" for line in file.read_text().splitlines()))
    without = LookupTable.load(table).modules
    assert without
    assert without.modules == tuple(replace(module, flops=None) for module in whole.modules)


def test_latencies_of_before_last_blocks_were_measured_apart_still_count(table: Path) -> None:
    before = LookupTable.load(table, table / MODULES).seconds(0, 4)
    edit(table / "modules.csv", "a.head,a.head,", "a.blocks.1.last,a.block.last,,102\na.head,a.head,")
    assert LookupTable.load(table, table / MODULES).seconds(0, 4) == before
    with (table / MODULES).open("a", encoding="utf-8") as file:
        file.write("a.block.last,,4,1,2,30\n")
    assert LookupTable.load(table, table / MODULES).seconds(0, 4) == pytest.approx(before - 0.004)


def test_launching_is_of_no_use_where_the_modules_are_not_known(table: Path) -> None:
    (table / "modules.csv").unlink()
    edit(
        table / LATENCY,
        "stitch,batch,p50_ms,p99_ms,runs\n",
        "module,stitch,batch,p50_ms,p99_ms,runs\nlaunch,,2,1,2,9\n",
    )
    assert "line 6: module 'launch' is not in modules.csv" in refusal(table, LATENCY)


@pytest.mark.parametrize("file", ["family.json", "labels.txt", "stitches.csv", LATENCY])
def test_a_missing_file_is_told(table: Path, file: str) -> None:
    (table / file).unlink()
    assert f"{table / file}: no such file; " in refusal(table)


@pytest.mark.parametrize("file", FILES)
def test_an_oversized_file_is_refused(table: Path, file: str) -> None:
    with (table / file).open("ab") as opened:
        opened.truncate(LARGEST_FILE + 1)
    assert f"{table / file}: larger than 16 MiB; " in refusal(table, file if file == MODULES else LATENCY)


@pytest.mark.parametrize("file", FILES)
def test_bytes_that_are_not_utf8_are_told_with_their_line(table: Path, file: str) -> None:
    content = (table / file).read_bytes()
    (table / file).write_bytes(content.replace(b"\n", b"\n\xff", 1))
    assert f"{file}, line 2: not UTF-8: " in refusal(table, file if file == MODULES else LATENCY)


def test_a_directory_in_a_files_place_is_told(table: Path) -> None:
    (table / "stitches.csv").unlink()
    (table / "stitches.csv").mkdir()
    assert "stitches.csv: no such file" in refusal(table)


@pytest.mark.parametrize("file", ["stitches.csv", LATENCY])
def test_a_file_without_rows_is_told(table: Path, file: str) -> None:
    lines = (table / file).read_text(encoding="utf-8").splitlines(keepends=True)
    header = next(i for i, line in enumerate(lines) if line.startswith("stitch,"))
    (table / file).write_text("".join(lines[: header + 1]), encoding="utf-8")
    assert f"{file}: no " in refusal(table)


@pytest.mark.parametrize("file", ["stitches.csv", LATENCY])
def test_an_empty_file_is_told(table: Path, file: str) -> None:
    (table / file).write_bytes(b"")
    assert f"{table / file}" in refusal(table)


def test_a_table_need_not_say_what_its_stitches_are_made_of(table: Path) -> None:
    (table / "modules.csv").unlink()
    assert LookupTable.load(table, table / LATENCY).modules is None
    message = refusal(table, MODULES)
    assert message.startswith(f"{table / MODULES}, line 5: module 'a.block' is not in modules.csv; ")


def test_a_route_that_is_far_too_long_is_told_at_once(table: Path) -> None:
    edit(table / "stitches.csv", "a[0:2],", ">".join(["a[0:999999]"] * 8_000) + ",")
    assert "modules.csv: no a.blocks.2, which stitch 0 passes" in refusal(table)


def test_json_that_is_no_object_is_told(table: Path) -> None:
    (table / "family.json").write_text("[1]")
    assert "family.json: the file: Input should be an object (found [1]); " in refusal(table)


def test_labels_may_lie_in_the_folder_above_and_no_further_up(table: Path) -> None:
    shutil.copy(table / "labels.txt", table.parent / "shared.txt")
    edit(table / "family.json", "labels.txt", "../shared.txt")
    assert LookupTable.load(table).labels[0] == "one"
    shutil.copy(table / "labels.txt", table.parents[1] / "outside.txt")
    edit(table / "family.json", "../shared.txt", "../../outside.txt")
    assert "labels: the file lies outside the lookup tables" in refusal(table)


def test_labels_may_not_leave_through_a_link(table: Path) -> None:
    outside = table.parents[1] / "outside.txt"
    (table / "labels.txt").rename(outside)
    (table / "labels.txt").symlink_to(outside)
    assert "labels: the file lies outside the lookup tables" in refusal(table)


def test_what_spreadsheets_write_is_read_alike(table: Path) -> None:
    for file in ("stitches.csv", LATENCY, MODULES, "modules.csv", "labels.txt"):
        text = (table / file).read_text(encoding="utf-8")
        (table / file).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    for latency in (LATENCY, MODULES):
        assert LookupTable.load(table, table / latency) == LookupTable.load(SMALL, SMALL / latency)
