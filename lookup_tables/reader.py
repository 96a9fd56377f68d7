"""From files to records: everything is checked here, once, and bytes from outside are taken as hostile."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lookup_tables.latency import Latency, Measurement, ModuleMeasurement
from lookup_tables.modules import INPUT, LAUNCH, OUTPUT, Composition, Module, counted_as, segments
from lookup_tables.records import Entry, Family, TableError

SCHEMA = 1
LARGEST_FILE = 16 * 2**20  # bytes; the largest published family needs a thousandth of it
STITCH_COLUMNS = ("stitch", "route", "flops", "params", "top1")
MODULE_COLUMNS = ("step", "module", "joins")
LATENCY_COLUMNS = ("stitch", "batch", "p50_ms", "p99_ms", "runs")
LONGEST_MS = 1e9

FIX_FAMILY = "correct it (`lookup_tables/__init__.py` describes the format)"
NO_TABLE = "`stitchserve build` and `stitchserve evaluate` write a lookup table into a folder, which --table names"
FIX_STITCHES = "correct it, or write it again with `stitchserve evaluate`"
FIX_LATENCY = "measure again with `stitchserve profile`"

_INTEGER = re.compile(r"[0-9]{1,15}", re.ASCII)  # below 2**53: also exact as a float
_DECIMAL = re.compile(r"[0-9]{1,30}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?", re.ASCII)
_STEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", re.ASCII)
_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.>-]{0,299}", re.ASCII)
_JOIN = re.compile(r"[A-Za-z0-9_.-]{1,100}\[:[0-9]{1,6}\]>[A-Za-z0-9_.-]{1,100}\[[0-9]{1,6}:\]", re.ASCII)
_COMMENT = re.compile(r"# *(?P<key>[^:]*[^: ]) *:(?P<value>.*)")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_FAMILY = TypeAdapter(Family)


def fault(path: Path, line: int | None, reason: str, remedy: str) -> TableError:
    """The error for a faulty file."""
    where = str(path) if line is None else f"{path}, line {line}"
    return TableError(f"{where}: {reason}; {remedy}")


def is_slug(device: str) -> bool:
    """Whether a device's name can stand in a file name: lower-case words and digits joined by hyphens."""
    return len(device) <= 100 and _SLUG.fullmatch(device) is not None


@dataclass(frozen=True)
class Row:
    """One line of a CSV file: its cells by column, and how to complain about them."""

    path: Path
    line: int
    cells: Mapping[str, str]
    remedy: str

    def fault(self, reason: str) -> TableError:
        """The error for this line."""
        return fault(self.path, self.line, reason, self.remedy)

    def integer(self, column: str, least: int) -> int:
        """The cell as an integer of at least `least`."""
        cell = self.cells[column]
        if not _INTEGER.fullmatch(cell) or int(cell) < least:
            raise self.fault(f"{column} {cell[:40]!r} is not an integer of at least {least}")
        return int(cell)

    def decimal(self, column: str, shift: int, largest: float) -> float:
        """The cell, from 0 to `largest`, times ten to the power `shift`: exact where a float product is not."""
        cell = self.cells[column]
        if not _DECIMAL.fullmatch(cell) or not Decimal(cell) <= Decimal(largest):
            raise self.fault(f"{column} {cell[:40]!r} is not a number from 0 to {largest:.15g}")
        return float(Decimal(cell).scaleb(shift))


def read_family(path: Path) -> Family:
    """family.json; TableError."""
    if not path.is_file():
        raise fault(path, None, "no such file", NO_TABLE)
    try:
        family = _FAMILY.validate_json(_text(path, FIX_FAMILY), strict=True)
    except ValidationError as error:
        raise fault(path, None, _first(error), FIX_FAMILY) from None
    if len(set(family.anchors)) < len(family.anchors):
        raise fault(path, None, "anchors: a name appears twice", FIX_FAMILY)
    return family


def read_labels(folder: Path, family: Family) -> tuple[str, ...]:
    """The labels, one a class, from a file that must lie within the folder above the family's; TableError."""
    path = (folder / family.labels).resolve()
    if not path.is_relative_to(folder.resolve().parent):
        raise fault(folder / "family.json", None, "labels: the file lies outside the lookup tables", FIX_FAMILY)
    labels = _lines(path, FIX_FAMILY)
    for line, label in enumerate(labels, start=1):
        if not label.strip() or not label.isprintable():
            raise fault(path, line, "a label must be printable and not empty", FIX_FAMILY)
    if len(labels) != family.classes:
        raise fault(path, None, f"{len(labels)} labels for {family.classes} classes", FIX_FAMILY)
    return tuple(labels)


def read_stitches(path: Path, anchors: tuple[str, ...]) -> tuple[Entry, ...]:
    """stitches.csv, its routes through `anchors`; TableError."""
    entries: list[Entry] = []
    for row in _rows(path, _lines(path, FIX_STITCHES), 0, STITCH_COLUMNS, FIX_STITCHES):
        entry = _entry(row, anchors)
        if entries and entry.stitch <= entries[-1].stitch:
            raise row.fault(f"stitch {entry.stitch} comes after {entries[-1].stitch}: ids must ascend, each once")
        entries.append(entry)
    if not entries:
        raise fault(path, None, "no stitches", FIX_STITCHES)
    return tuple(entries)


def read_modules(path: Path, entries: Sequence[Entry]) -> Composition:
    """modules.csv, of a table with these stitches; TableError."""
    modules = tuple(_module(row) for row in _rows(path, _lines(path, FIX_STITCHES), 0, MODULE_COLUMNS, FIX_STITCHES))
    names = [module.step for module in modules] + [place for module in modules for place in module.joins]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise fault(path, None, f"{twice} appears twice", FIX_STITCHES)
    composition = Composition(modules)
    for entry in entries:
        missing = composition.lacks(entry.route)
        if missing:
            raise fault(path, None, f"no {missing}, which stitch {entry.stitch} passes", FIX_STITCHES)
    return composition


def read_latency(
    path: Path, stitches: frozenset[int], known: frozenset[str] = frozenset(), needed: frozenset[str] = frozenset()
) -> Latency:
    """latency.<device>.csv, for a table of `stitches` that pass the `needed` of the `known` modules; TableError."""
    lines = _lines(path, FIX_LATENCY)
    details = _comments(path, lines)
    device = details.pop("device", "")
    if not is_slug(device):
        raise fault(path, None, f"device {device[:40]!r} is not a name such as cpu-amd-epyc-9r14", FIX_LATENCY)
    measured: dict[tuple[int, int], Measurement] = {}
    modules: dict[tuple[str, int], ModuleMeasurement] = {}
    for row in _rows(path, lines, _head(lines), LATENCY_COLUMNS, FIX_LATENCY):
        if row.cells.get("module"):
            of_module = _module_measurement(row, known)
            if (of_module.module, of_module.batch) in modules:
                raise row.fault(f"module {of_module.module} at batch {of_module.batch} appears twice")
            modules[of_module.module, of_module.batch] = of_module
        else:
            m = _measurement(row, stitches)
            if (m.stitch, m.batch) in measured:
                raise row.fault(f"stitch {m.stitch} at batch {m.batch} appears twice")
            measured[m.stitch, m.batch] = m
    if not measured and not modules:
        raise fault(path, None, "no measurements", FIX_LATENCY)
    kinds = {module for module, _ in modules}
    missing = sorted(kind for kind in needed if counted_as(kind, kinds) not in kinds) if modules else []
    if missing:
        raise fault(path, None, f"nothing measured of module {missing[0]}", FIX_LATENCY)
    return Latency(device, tuple(measured.values()), details, tuple(modules.values()))


def _text(path: Path, remedy: str) -> str:
    try:
        if not path.is_file():
            raise fault(path, None, "no such file", remedy)
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise fault(path, None, f"cannot be read: {error.strerror}", remedy) from error
    if len(content) > LARGEST_FILE:
        raise fault(path, None, f"larger than {LARGEST_FILE // 2**20} MiB", remedy)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise fault(path, line, f"not UTF-8: {error.reason}", remedy) from None


def _lines(path: Path, remedy: str) -> list[str]:
    # Not splitlines(): that also breaks at form feeds and Unicode separators, which are faults here.
    return _text(path, remedy).replace("\r\n", "\n").removesuffix("\n").split("\n")


def _rows(path: Path, lines: list[str], head: int, columns: tuple[str, ...], remedy: str) -> Iterator[Row]:
    reader = csv.reader(lines[head:], strict=True)
    try:
        header = next(reader, [])
        _check_header(path, head + 1, header, columns, remedy)
        for cells in reader:
            line = head + reader.line_num
            if len(cells) != len(header):
                raise fault(path, line, f"{len(cells)} cells for {len(header)} columns", remedy)
            yield Row(path, line, dict(zip(header, cells, strict=True)), remedy)
    except csv.Error as error:
        raise fault(path, head + reader.line_num, f"not CSV: {error}", remedy) from None


def _check_header(path: Path, line: int, header: list[str], columns: tuple[str, ...], remedy: str) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise fault(path, line, f"missing column {', '.join(missing)} (the header is {','.join(columns)})", remedy)
    if len(set(header)) < len(header):
        raise fault(path, line, "a column appears twice", remedy)


def _entry(row: Row, anchors: tuple[str, ...]) -> Entry:
    return Entry(
        stitch=row.integer("stitch", least=0),
        route=_route(row, anchors),
        flops=row.integer("flops", least=1),
        params=row.integer("params", least=0),
        top1=row.decimal("top1", shift=-2, largest=100) if row.cells["top1"] else None,
    )


def _route(row: Row, anchors: tuple[str, ...]) -> str:
    route = row.cells["route"]
    try:
        parts = segments(route)
    except ValueError as error:
        raise row.fault(str(error)) from None
    if not {part.anchor for part in parts} <= set(anchors):
        raise row.fault(f"route {route[:80]!r} names an anchor that family.json does not ({', '.join(anchors)})")
    return route


def _module(row: Row) -> Module:
    step, kind, joins = row.cells["step"], row.cells["module"], row.cells["joins"].split()
    if not _STEP.fullmatch(step):
        raise row.fault(f"step {step[:40]!r} is not a name such as deit_ti.blocks.0")
    if not _KIND.fullmatch(kind) or kind in (INPUT, OUTPUT, LAUNCH):
        raise row.fault(f"module {kind[:40]!r} is not a name such as deit_ti.block")
    for place in joins:
        if not _JOIN.fullmatch(place):
            raise row.fault(f"joins {place[:80]!r} does not read like anchor[:4]>anchor[4:]")
    return Module(step, kind, tuple(joins), row.integer("flops", least=0) if row.cells.get("flops") else None)


def _measurement(row: Row, stitches: frozenset[int]) -> Measurement:
    stitch = row.integer("stitch", least=0)
    if stitch not in stitches:
        raise row.fault(f"stitch {stitch} is not in stitches.csv")
    return Measurement(stitch, *_measured(row))


def _module_measurement(row: Row, kinds: frozenset[str]) -> ModuleMeasurement:
    module = row.cells["module"]
    if row.cells["stitch"]:
        raise row.fault("a row is of a stitch or of a module, not of both")
    if module not in kinds and not (kinds and module == LAUNCH):
        remedy = f"{FIX_LATENCY}, or, where the table is older than that, write it again with `stitchserve evaluate`"
        raise fault(row.path, row.line, f"module {module[:80]!r} is not in modules.csv", remedy)
    return ModuleMeasurement(module, *_measured(row))


def _measured(row: Row) -> tuple[int, float, float, int]:
    """Batch, p50, p99 and runs."""
    p50, p99 = (row.decimal(column, shift=-3, largest=LONGEST_MS) for column in ("p50_ms", "p99_ms"))
    if not p50 > 0:
        raise row.fault(f"p50_ms {row.cells['p50_ms'][:40]!r} is not positive")
    if p99 < p50:
        raise row.fault("p99_ms is less than p50_ms")
    return row.integer("batch", least=1), p50, p99, row.integer("runs", least=1)


def _head(lines: list[str]) -> int:
    """How many lines of comments lead the file."""
    return next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _comments(path: Path, lines: list[str]) -> dict[str, str]:
    details: dict[str, str] = {}
    for number, line in enumerate(lines[: _head(lines)], start=1):
        comment = _COMMENT.fullmatch(line)
        if not comment or comment["key"] in details or not line.isprintable():
            raise fault(path, number, "a comment must read `# key: value`, each key once", FIX_LATENCY)
        details[comment["key"]] = comment["value"].strip()
    if details.pop("schema", None) != str(SCHEMA):
        raise fault(path, None, f"`# schema: {SCHEMA}` is missing or another", FIX_LATENCY)
    return details


def _first(error: ValidationError) -> str:
    """The first of pydantic's complaints: field, what is wrong, what stands there."""
    detail = error.errors(include_url=False)[0]
    if detail["type"] == "json_invalid":
        return detail["msg"]
    field = ".".join(str(part) for part in detail["loc"]) or "the file"
    found = "" if detail["type"] == "missing" else f" (found {repr(detail['input'])[:40]})"
    return f"{field}: {detail['msg']}{found}"
