"""Writes a table's files so that reading them gives back equal values; a reader never sees half a file."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from pydantic import TypeAdapter

from lookup_tables.latency import Latency, Measurement, ModuleMeasurement
from lookup_tables.modules import Composition
from lookup_tables.reader import LATENCY_COLUMNS, MODULE_COLUMNS, SCHEMA, STITCH_COLUMNS, is_slug
from lookup_tables.records import Entry, Family, TableError

_FAMILY = TypeAdapter(Family)


def latency_path(folder: Path, device: str) -> Path:
    """Where a device's latency file lies; TableError if the device's name is not a slug."""
    if not is_slug(device):
        raise TableError(f"device {device!r} is not a name such as cpu-amd-epyc-9r14; make one with `device_slug`")
    return folder / f"latency.{device}.csv"


def write_family(folder: Path, family: Family) -> Path:
    """Writes family.json and returns its path."""
    content = _FAMILY.dump_json(family, by_alias=True, indent=2).decode()
    return write_whole(folder / "family.json", content + "\n")


def write_labels(path: Path, labels: Sequence[str]) -> Path:
    """Writes one label a line; TableError if one is empty or not printable."""
    for label in labels:
        if not label.strip() or not label.isprintable():
            raise TableError(f"label {label!r} cannot stand on a line of its own")
    return write_whole(path, "".join(f"{label}\n" for label in labels))


def write_stitches(folder: Path, entries: Iterable[Entry]) -> Path:
    """Writes stitches.csv by ascending id and returns its path."""
    rows = [_stitch_row(entry) for entry in sorted(entries, key=lambda entry: entry.stitch)]
    return write_whole(folder / "stitches.csv", _csv(STITCH_COLUMNS, rows))


def write_modules(folder: Path, composition: Composition) -> Path:
    """Writes modules.csv in the composition's order and returns its path."""
    rows = [(m.step, m.kind, " ".join(m.joins), "" if m.flops is None else m.flops) for m in composition.modules]
    return write_whole(folder / "modules.csv", _csv((*MODULE_COLUMNS, "flops"), rows))


def write_latency(folder: Path, latency: Latency) -> Path:
    """Writes latency.<device>.csv and returns its path; TableError if the details do not fit `# key: value` lines."""
    comments = {"schema": str(SCHEMA), "device": latency.device}
    for key, value in latency.details.items():
        if key in comments or not _fits_a_comment(key, value):
            raise TableError(f"detail {key!r}: {value!r} does not fit a line `# key: value`")
    lines = "".join(f"# {key}: {value}\n" for key, value in (comments | dict(latency.details)).items())
    stitches = [(m.stitch, *_measured(m)) for m in sorted(latency.measurements, key=lambda m: (m.stitch, m.batch))]
    modules = [(m.module, "", *_measured(m)) for m in sorted(latency.modules, key=lambda m: (m.module, m.batch))]
    table = (
        _csv(("module", *LATENCY_COLUMNS), modules + [("", *row) for row in stitches])
        if modules
        else _csv(LATENCY_COLUMNS, stitches)
    )
    return write_whole(latency_path(folder, latency.device), lines + table)


def _fits_a_comment(key: str, value: str) -> bool:
    tidy = key == key.strip() and value == value.strip()
    return bool(key) and tidy and ":" not in key and (key + value).isprintable()


def _stitch_row(entry: Entry) -> tuple[object, ...]:
    top1 = "" if entry.top1 is None else _shifted(entry.top1, 2)
    return entry.stitch, entry.route, entry.flops, entry.params, top1


def _measured(m: Measurement | ModuleMeasurement) -> tuple[object, ...]:
    return m.batch, _shifted(m.p50, 3), _shifted(m.p99, 3), m.runs


def _shifted(value: float, places: int) -> str:
    """The shortest decimal of `value` with its point moved: a float product would not read back equal."""
    shifted = Decimal(repr(float(value))).scaleb(places)
    return f"{shifted.normalize():f}" if abs(shifted.adjusted()) < 20 else str(shifted)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def write_whole(path: Path, content: str) -> Path:
    """Writes a text file, which is never seen half written, in the place of whatever has that name; its path."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(content, encoding="utf-8", newline="")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
