"""Whether a lookup table is one of a model."""

from dataclasses import asdict

from lookup_tables.table import LookupTable, TableError
from stitching import SNNet, Stitch


def check(model: SNNet, table: LookupTable) -> None:
    """TableError unless the table is one of this model: the same stitches, modules, classes and preprocessing."""
    family = model.family
    stitches = {stitch.id: stitch for stitch in model.stitches}
    for entry in table.entries:
        stitch = stitches.get(entry.stitch)
        route = stitch and stitch.route(family.anchor_names)
        if stitch is None or route != entry.route:
            raise TableError(
                f"table {table.family.name!r}: stitch {entry.stitch} is {entry.route}, "
                f"but {route} in family {family.name!r}; use the table of this family"
            )
        if table.modules and table.modules.walk(entry.route) != _walk(model, stitch):
            raise TableError(
                f"table {table.family.name!r}: by modules.csv stitch {entry.stitch} passes other modules than in "
                f"family {family.name!r}; write the table again with `stitchserve evaluate`, or remove that file"
            )
    if table.family.classes != family.classes or asdict(table.family.preprocessing) != asdict(family.preprocessing):
        raise TableError(f"table {table.family.name!r}: classes or preprocessing differ from family {family.name!r}")


def _walk(model: SNNet, stitch: Stitch) -> list[tuple[str, str]]:
    return [(step.name, step.kind) for step in model.path(stitch)]
