"""Which stitch a training step draws."""

import re
from collections.abc import Sequence

from torch import Generator, randint

from stitching.flops import flops
from stitching.model import SNNet
from stitching.stitch import Stitch

Groups = tuple[tuple[Stitch, ...], ...]


def drawable(model: SNNet, stitches: str) -> tuple[Stitch, ...]:
    """The stitches that a list of "all", "anchors", ids and ranges of ids names: "0,2,5"; "all,3-24x2,2x20".

    A number after an x says how often. ValueError for anything else.
    """
    whole = tuple(stitch for stitch in model.stitches if stitch.is_whole)
    named = {"all": whole, "anchors": tuple(stitch for stitch in model.stitches if stitch.is_anchor)}
    drawn: list[Stitch] = []
    for part in stitches.split(","):
        match = re.fullmatch(r"(all|anchors|(\d+)(?:-(\d+))?)(?:x([1-9]\d*))?", part.strip(), re.ASCII)
        name, first, last, times = match.groups() if match else ("", None, None, None)
        chosen = model.stitches[int(first) : int(last or first) + 1] if first else named.get(name, ())
        if not chosen or int(last or first or 0) >= len(model.stitches):
            ids = f"ids 0 to {len(model.stitches) - 1}"
            raise ValueError(f"stitches: {part!r} is none of all, anchors, {ids}, as in 0,2,5 or all,3-24x2,2x20")
        drawn += chosen * int(times or "1")
    return tuple(drawn)


def groups(model: SNNet, stitches: Sequence[Stitch], width: float | None) -> Groups:
    """The stitches in groups of like FLOPs (SN-Net v2's resource-constrained sampling); one group without a width.

    By ascending FLOPs, a group ends before the stitch that is more than `width` FLOPs above the group's start: its
    first stitch's FLOPs, or 0 for the first group.
    """
    if width is None:
        return (tuple(stitches),)
    grouped: list[list[Stitch]] = [[]]
    start = 0.0
    for cost, _, stitch in sorted(zip(flops(model, stitches), range(len(stitches)), stitches, strict=True)):
        if cost - start > width:
            start = cost
            grouped.append([])
        grouped[-1].append(stitch)
    return tuple(tuple(group) for group in grouped if group)


def draw(drawn: Groups, seed: int, rank: int, step: int) -> Stitch:
    """The stitch of one step: a group, then one of its stitches, each uniformly; a function of the arguments alone."""
    generator = Generator().manual_seed((seed * 1_000 + rank) * 10_000_019 + step)
    group = drawn[int(randint(len(drawn), (), generator=generator))] if len(drawn) > 1 else drawn[0]
    return group[int(randint(len(group), (), generator=generator))]
