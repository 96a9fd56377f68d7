"""`GET /anchors`: the blocks and stitching layers that stitches are made of, and what each costs."""

from fastapi import APIRouter, Depends

from lookup_tables.modules import join
from lookup_tables.table import LookupTable
from server.openapi import ANYWHERE, refusals
from server.parameters import only
from server.routes import Serving
from server.schemas import Anatomy, AnchorListed, BlockListed, JoinListed, StepListed
from stitching.anchors import Anchor
from stitching.model import SNNet
from stitching.stitch import Join

router = APIRouter(responses=ANYWHERE)


@router.get("/anchors", dependencies=[Depends(only())], responses=refusals(422), summary="What stitches are made of")
async def anchors(serving: Serving) -> Anatomy:
    """The anchors' blocks and the stitching layers, with width, FLOPs and latency on this device."""
    return listed(serving.engine.model, serving.table)


def listed(model: SNNet, table: LookupTable) -> Anatomy:
    """The model's parts as the route shows them."""
    costs = _Costs(table)
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

    def __init__(self, table: LookupTable) -> None:
        self._modules = {module.step: module for module in table.modules.modules} if table.modules else {}
        self._latency = table.latency if table.latency and table.latency.modules else None

    def of(self, step: str) -> dict[str, str | int | float | None]:
        """Name, FLOPs and latency of a step."""
        module = self._modules.get(step)
        seconds = self._latency.of_module(module.kind).at(1) if self._latency and module else None
        milliseconds = None if seconds is None else round(seconds * 1e3, 4)
        return {"name": step, "flops": module.flops if module else None, "latency_ms": milliseconds}


def _anchor(name: str, seam: Anchor, costs: _Costs) -> AnchorListed:
    return AnchorListed(
        name=name,
        stem=StepListed(**costs.of(seam.stem.name)),
        blocks=[
            BlockListed(**costs.of(block.name), stage=seam.stage(at), width=seam.widths[at + 1])
            for at, block in enumerate((*seam.blocks[:-1], seam.last or seam.blocks[-1]))
        ],
        head=StepListed(**costs.of(seam.head.name)),
    )
