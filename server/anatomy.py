"""`GET /anchors`: the blocks and stitching layers that stitches are made of, and what each costs."""

import asyncio
from collections.abc import Callable, Mapping
from functools import lru_cache
from pkgutil import resolve_name
from threading import Lock

from fastapi import APIRouter, Depends

from lookup_tables.modules import join
from lookup_tables.table import LookupTable
from server.openapi import ANYWHERE, refusals
from server.parameters import only
from server.routes import Serving
from server.schemas import Anatomy, AnchorListed, BlockListed, JoinListed, StepListed
from stitching.anchors import Anchor
from stitching.families import Family
from stitching.model import SNNet
from stitching.stitch import Join

_COUNTING = Lock()  # whoever asks meanwhile waits for what the first one finds

router = APIRouter(responses=ANYWHERE)


@router.get("/anchors", dependencies=[Depends(only())], responses=refusals(422), summary="What stitches are made of")
async def anchors(serving: Serving) -> Anatomy:
    """The anchors' blocks and the stitching layers, with width, FLOPs and latency on this device.

    FLOPs are counted when they are asked for first, which takes a second or two of one thread.
    """
    model = serving.engine.model
    flops = await asyncio.to_thread(_counted, _Named(model.family))
    return listed(model, serving.table, flops)


class _Named:
    """A family as a key: by itself it cannot be one, since its anchors' arguments are mappings."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and other.family == self.family

    def __hash__(self) -> int:
        return hash(self.family.name)


@lru_cache(maxsize=4)
def _step_flops(named: _Named) -> Mapping[str, int]:
    # By name: torch's counter of FLOPs brings its compilers along, of 150 MB.
    step_flops: Callable[[Family], Mapping[str, int]] = resolve_name("stitching.step_flops:step_flops")
    return step_flops(named.family)


def _counted(named: _Named) -> Mapping[str, int]:
    with _COUNTING:
        return _step_flops(named)


def listed(model: SNNet, table: LookupTable, flops: Mapping[str, int]) -> Anatomy:
    """The model's parts as the route shows them."""
    costs = _Costs(table, flops)
    names = model.family.anchor_names
    places: dict[str, list[Join]] = {}
    for each in model.joins:
        places.setdefault(".".join(["stitch_layers", *map(str, each.layer)]), []).append(each)
    return Anatomy(
        model=table.family.name,
        anchors=[_anchor(name, seam, costs) for name, seam in zip(names, model.seams, strict=True)],
        joins=[
            JoinListed(
                **costs.of(name),
                places=[join(names[at.front], at.stop, names[at.end], at.start) for at in joins],
                width_in=model.seams[joins[0].front].widths[joins[0].stop],
                width_out=model.seams[joins[0].end].widths[joins[0].start],
            )
            for name, joins in places.items()
        ],
    )


class _Costs:
    """FLOPs and latency of steps by their names, in the words of a `StepListed`."""

    def __init__(self, table: LookupTable, flops: Mapping[str, int]) -> None:
        self._flops = flops
        self._kinds = {module.step: module.kind for module in table.modules.modules} if table.modules else {}
        self._latency = table.latency if table.latency and table.latency.modules else None

    def of(self, step: str) -> dict[str, str | int | float | None]:
        """Name, FLOPs and latency of a step."""
        kind = self._kinds.get(step)
        seconds = self._latency.of_module(kind).at(1) if self._latency and kind else None
        milliseconds = None if seconds is None else round(seconds * 1e3, 4)
        return {"name": step, "flops": self._flops.get(step), "latency_ms": milliseconds}


def _anchor(name: str, seam: Anchor, costs: _Costs) -> AnchorListed:
    return AnchorListed(
        name=name,
        stem=StepListed(**costs.of(seam.stem.name)),
        blocks=[
            BlockListed(**costs.of(block.name), stage=seam.stage(at), width=seam.widths[at + 1])
            for at, block in enumerate(seam.blocks)
        ],
        head=StepListed(**costs.of(seam.head.name)),
    )
