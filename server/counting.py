"""A model's lookup table: its stitches counted, with the top-1 that was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lookup_tables.modules import Composition, Module, join
from lookup_tables.records import Checkpoint, Entry, Family, FlopsSource, Preprocessing, Top1Source
from lookup_tables.writer import write_family, write_labels, write_modules, write_stitches
from stitching.flops import params, step_flops
from stitching.model import SNNet
from stitching.stitch import Stitch


def measured_on(images: int, split: str, data: str) -> Top1Source:
    """Where top-1 that `stitchserve evaluate` measured comes from."""
    name = Path(data).name
    return Top1Source(f"measured by stitchserve evaluate on {images} images, split {split!r} of {name!r}", images)


def composition(model: SNNet, counted: Mapping[Stitch, Sequence[int]]) -> Composition:
    """The modules that these stitches pass, in the order the first meet them; `counted`: FLOPs of each one's steps."""
    names = model.family.anchor_names
    kinds: dict[str, tuple[str, int]] = {}
    joins: dict[str, dict[str, None]] = {}
    for stitch, costs in counted.items():
        kinds |= {step.name: (step.kind, cost) for step, cost in zip(model.path(stitch), costs, strict=True)}
        for at, (layer, *_) in zip(stitch.joins(), model.segments(stitch)[1:], strict=True):
            place = join(names[at.front], at.stop, names[at.end], at.start)
            joins.setdefault(layer.name, {})[place] = None
    return Composition(
        tuple(Module(step, kind, tuple(joins.get(step, ())), cost) for step, (kind, cost) in kinds.items())
    )


def write_table(
    folder: Path,
    model: SNNet,
    *,
    top1: Mapping[int, float],
    source: Top1Source,
    labels: Sequence[str],
    checkpoint: Checkpoint | None,
) -> Path:
    """Write the table of a model into `folder`, which it gives back; `top1` as fractions, by stitch id, where known."""
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(folder / "labels.txt", labels)
    names = model.family.anchor_names
    stitches = [stitch for stitch in model.stitches if stitch.is_whole]
    counted = dict(zip(stitches, step_flops(model, stitches), strict=True))
    write_stitches(
        folder,
        (
            Entry(stitch.id, stitch.route(names), sum(costs), params(model, stitch), top1.get(stitch.id))
            for stitch, costs in counted.items()
        ),
    )
    write_modules(folder, composition(model, counted))
    write_family(
        folder,
        Family(
            schema=1,
            name=model.family.name,
            anchors=names,
            classes=model.family.classes,
            labels="labels.txt",
            top1=source,
            flops=FlopsSource("counted by stitchserve on the model", "multiply-adds as counted by fvcore"),
            preprocessing=Preprocessing(**asdict(model.family.preprocessing)),
            checkpoint=checkpoint,
        ),
    )
    return folder
