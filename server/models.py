"""The models that the Open Inference Protocol sees: `auto`, and `auto@` with a stitch or a budget after it.

All are one network. `auto` leaves the stitch to the controller, `auto@24` pins one, `auto@2GFLOPs` is a budget.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from lookup_tables.table import LookupTable
from server import budget as budgets
from server.batcher import Answer
from server.budget import GRAMMAR, Budget
from server.engine import MOST_CLASSES, Image, Ranking
from server.errors import BadBudget, BadRequest, UnknownModel
from server.form import MOST_IMAGES
from server.pixels import from_pixels
from server.reading import Reading, timed
from server.schemas import percent
from server.service import Service
from server.stages import Stages
from server.tensors import CLASSIFIED, INPUTS, OUTPUTS, Datatype, Output, OutputName, Parameters, Pixels, Wanted

AUTO, VERSION, PLATFORM = "auto", "1", "stitchserve"
SINGLE = ("stitch", "reason")
"""The outputs that have one value for an image, not one for each class."""

_STITCH = re.compile("[0-9]+")

Named = tuple[str, Datatype, list[int]]
"""A tensor's name, datatype and shape without the images' own dimension."""


def budget_of(name: str, version: str | None = None, parameters: Parameters | None = None) -> Budget:
    """What a model's name and a request's parameters allow together.

    Raises UnknownModel for a name that is none, BadBudget for what does not parse or is said twice.
    """
    base, at, budget = name.partition("@")
    if base != AUTO or version not in {None, VERSION}:
        of_version = f" of version {version[:40]!a}" if version else ""
        raise UnknownModel(
            f"there is no model {name[:40]!a}{of_version}; there are {AUTO}, {AUTO}@24 for a stitch, and "
            f"{AUTO}@2GFLOPs, {AUTO}@15ms or {AUTO}@78% for a budget, all of version {VERSION}"
        )
    asked = parameters or Parameters()
    pinned = [budget] if _STITCH.fullmatch(budget) else []
    terms = [budget] if at and not pinned else []
    pinned += [] if asked.stitch is None else [str(asked.stitch)]
    if len(pinned) > 1:
        raise BadBudget(f"stitch: {name[:40]!a} and the parameter both set it; {GRAMMAR}", field="stitch")
    terms += [] if asked.budget is None else [asked.budget]
    terms += [f"{asked.timeout}us"] if asked.timeout else []
    return budgets.parse(terms, stitch=pinned[0] if pinned else None)


def names(serving: Service) -> Iterator[str]:
    """The models that are listed: `auto` and one for each stitch on the frontier. Other budgets work too."""
    return chain([AUTO], (f"{AUTO}@{entry.stitch}" for entry in serving.controller.frontier))


def metadata(serving: Service, name: str) -> dict[str, object]:
    """What the protocol tells of a model; raises as `budget_of`, Infeasible or UnknownStitch for one that cannot be."""
    allowed, family = serving.controller.allow(budget_of(name)), serving.table.family
    best, normal = allowed.entries[-1], family.preprocessing
    inputs = _tensors(_inputs(serving))
    inputs[-1]["parameters"] = {"mean": list(normal.mean), "std": list(normal.std), "of": "RGB in 0..1"}
    return {
        "name": name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": _tensors(_outputs(serving)),
        "parameters": {
            "family": family.name,
            "inputs": "give one of them",
            "stitches": [entry.stitch for entry in allowed.entries],
            "dearest": {"stitch": best.stitch, "flops": best.flops, "top1": percent(best.top1)},
        },
    }


def configuration(serving: Service, name: str) -> dict[str, object]:
    """The same as Triton's model configuration, which perf_analyzer asks for; raises as `metadata`."""
    serving.controller.allow(budget_of(name))
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": min(MOST_IMAGES, serving.settings.max_queue),
        "input": [_configured(*tensor) | {"optional": True} for tensor in _inputs(serving)],
        "output": [_configured(*tensor) for tensor in _outputs(serving)],
    }


def _inputs(serving: Service) -> list[Named]:
    size = serving.table.family.preprocessing.size
    # perf_analyzer needs a dimension beside the batch's; [N] is taken as well as [N, 1].
    return [(name, kind, [1] if kind == "BYTES" else [3, size, size]) for name, kind in INPUTS.items()]


def _outputs(serving: Service) -> list[Named]:
    kept = min(MOST_CLASSES, serving.table.family.classes)
    return [(name, kind, [] if name in SINGLE else [kept]) for name, kind in OUTPUTS.items()]


def _tensors(tensors: Sequence[Named]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": kind, "shape": [-1, *shape]} for name, kind, shape in tensors]


def _configured(name: str, kind: Datatype, shape: list[int]) -> dict[str, object]:
    # Without a dimension beside the batch's it is written as one that loses it.
    whole: dict[str, object] = {} if shape else {"reshape": {"shape": []}}
    return whole | {"name": name, "data_type": f"TYPE_{'STRING' if kind == 'BYTES' else kind}", "dims": shape or [1]}


def reader(serving: Service, image: bytes | Pixels) -> Reading:
    """What makes of one image what the engine takes."""
    if isinstance(image, bytes):
        return serving.reading(image)
    ready = partial(from_pixels, image, serving.table.family.preprocessing)
    if image.dtype == np.uint8:
        return partial(_at_once, ready)
    return partial(serving.on_thread, ready)


async def _at_once(ready: Callable[[], Image], stages: Stages) -> Image:
    """Where nothing is to be decoded, and no thread needed."""
    return timed(ready, stages)


def outputs(
    table: LookupTable, answers: Sequence[Answer[Ranking]], wanted: Sequence[Wanted], *, binary: bool
) -> Iterator[Output]:
    """The tensors that are wanted of the answers, all where none is named; `binary` where a tensor does not say.

    Raises BadRequest where classes are wanted of another output than the probabilities.
    """
    for one in wanted or [Wanted(name=name) for name in OUTPUTS]:
        in_tail = binary if one.parameters.binary_data is None else one.parameters.binary_data
        most = one.parameters.classification
        if most and one.name != CLASSIFIED:
            raise BadRequest(f"output {one.name!r}: classification is of {CLASSIFIED!r}")
        rows = [_classes(table, answer, most) if most else _ROWS[one.name](table, answer) for answer in answers]
        shape = [len(rows)] if one.name in SINGLE else [len(rows), len(rows[0])]
        yield Output(one.name, "BYTES" if most else OUTPUTS[one.name], shape, list(chain(*rows)), in_tail)


def _classes(table: LookupTable, answer: Answer[Ranking], most: int) -> list[str]:
    """The likeliest classes as Triton writes them: `probability:index:label`."""
    best = zip(*(values[:most].tolist() for values in answer.result), strict=True)
    return [f"{probability:f}:{index}:{table.labels[index]}" for index, probability in best]


_ROWS: Mapping[OutputName, Callable[[LookupTable, Answer[Ranking]], Sequence[Any]]] = {
    "indices": lambda _, answer: answer.result.indices.tolist(),
    "probabilities": lambda _, answer: answer.result.probabilities.tolist(),
    "labels": lambda table, answer: [table.labels[index] for index in answer.result.indices.tolist()],
    "stitch": lambda _, answer: [answer.entry.stitch],
    "reason": lambda _, answer: [answer.reason],
}
