"""Which modules a family's stitches are made of: from a route to the steps it walks, without the network itself."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

INPUT, OUTPUT = "input", "output"
"""Module classes that every batch passes once: images to the device and normalised, logits ranked and back."""
LAUNCH = "launch"
"""Listed like a module class: the least seconds that a mixture takes, after its input, for each module call."""

LAST = ".last"
"""What the class of a block before a head ends with: the class of that block elsewhere, and this."""

_SEGMENT = re.compile(r"(?P<anchor>[^\[\]:>]+)\[(?P<start>[0-9]{1,6}):(?P<stop>[0-9]{1,6})\]", re.ASCII)


@dataclass(frozen=True)
class Segment:
    """Blocks [start, stop) of one anchor."""

    anchor: str
    start: int
    stop: int


def segments(route: str) -> tuple[Segment, ...]:
    """The segments of a route such as `deit_ti[0:4]>deit_s[4:12]`; ValueError where it does not read like that."""
    found = [_SEGMENT.fullmatch(piece) for piece in route.split(">")]
    parts = tuple(Segment(m["anchor"], int(m["start"]), int(m["stop"])) for m in found if m)
    if len(parts) < len(found) or any(part.start >= part.stop for part in parts):
        raise ValueError(f"route {route[:80]!r} does not read like anchor[0:4]>anchor[4:12]")
    return parts


@dataclass(frozen=True)
class Module:
    """One module: the step's name, its class (`kind`), and for a stitching layer where it `joins`, as `join` has it.

    `flops` for one image, where they are known.
    """

    step: str
    kind: str
    joins: tuple[str, ...] = ()
    flops: int | None = None


def counted_as(kind: str, measured: Collection[str]) -> str:
    """The class whose latency is that of `kind`: itself, or that of other blocks where a last one was not measured."""
    return kind if kind in measured else kind.removesuffix(LAST)


def join(front: str, stop: int, end: str, start: int) -> str:
    """Where a stitching layer stands: `deit_ti[:4]>deit_s[4:]`, behind the blocks before `stop`, before `start`."""
    return f"{front}[:{stop}]>{end}[{start}:]"


@dataclass(frozen=True)
class Composition:
    """All modules of a family.

    An anchor's own modules are named after it: `deit_ti.stem`, `deit_ti.blocks.0` and so on, `deit_ti.head`. A route of
    several segments ends with `bare_head` where the last anchor has one; the block before a head is
    `deit_ti.blocks.11.last` where that is a module of its own.
    """

    modules: tuple[Module, ...]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The module classes, those that every batch passes included."""
        return tuple(dict.fromkeys([INPUT, *(module.kind for module in self.modules), OUTPUT]))

    def of(self, routes: Iterable[str]) -> "Composition":
        """The modules that these routes pass, and no others; ValueError if one is missing."""
        passed = sorted({place for route in routes for place in self.steps(route)})
        return Composition(tuple(self.modules[place] for place in passed))

    def steps(self, route: str) -> list[int]:
        """The places in `modules` of the steps that a route walks, in order; ValueError if one is missing."""
        walked = []
        for name in self._names(segments(route)):
            if name not in self._places:
                raise ValueError(f"there is no {name}")
            walked.append(self._places[name])
        return walked

    def walk(self, route: str) -> list[tuple[str, str]]:
        """Step and module class of all that a route passes, in order; ValueError if one is missing."""
        return [(self.modules[place].step, self.modules[place].kind) for place in self.steps(route)]

    def lacks(self, route: str) -> str | None:
        """The first step of a route that is missing, if any; as quick for a long segment as for a short one."""
        parts = segments(route)
        for part in parts:
            if part.stop > self._depths.get(part.anchor, 0):
                return f"{part.anchor}.blocks.{max(part.start, self._depths.get(part.anchor, 0))}"
        return next((name for name in self._names(parts) if name not in self._places), None)

    def covering(self, costs: Mapping[str, float]) -> list[str]:
        """Routes that together pass every module class that any of them passes, none superfluous.

        Chosen greedily: the one that costs least for each new class, until all are passed.
        """
        cheapest: dict[frozenset[str], str] = {}
        for route in sorted(costs, key=costs.__getitem__):
            cheapest.setdefault(frozenset(kind for _, kind in self.walk(route)), route)
        missing = set[str]().union(*cheapest)
        chosen: list[frozenset[str]] = []
        while missing:
            useful = [kinds for kinds in cheapest if kinds & missing]
            chosen.append(min(useful, key=lambda kinds: costs[cheapest[kinds]] / len(kinds & missing)))
            missing -= chosen[-1]
        for kinds in sorted(chosen, key=lambda kinds: -costs[cheapest[kinds]]):
            if kinds <= set[str]().union(*(other for other in chosen if other != kinds)):
                chosen.remove(kinds)
        return [cheapest[kinds] for kinds in chosen]

    def _names(self, parts: tuple[Segment, ...]) -> Iterator[str]:
        stem, *joins, head = self._ends(parts)
        for part, before in zip(parts, [stem, *joins], strict=True):
            yield before
            yield from (f"{part.anchor}.blocks.{block}" for block in range(part.start, part.stop - 1))
            final = f"{part.anchor}.blocks.{part.stop - 1}"
            ends = part is parts[-1] and f"{final}{LAST}" in self._places
            yield f"{final}{LAST}" if ends else final
        yield head

    def _ends(self, parts: tuple[Segment, ...]) -> list[str]:
        """The steps that are no blocks: stem, joins, head."""
        joins = (join(front.anchor, front.stop, end.anchor, end.start) for front, end in pairwise(parts))
        bare = f"{parts[-1].anchor}.bare_head"
        head = bare if len(parts) > 1 and bare in self._places else f"{parts[-1].anchor}.head"
        return [f"{parts[0].anchor}.stem", *joins, head]

    @cached_property
    def _places(self) -> dict[str, int]:
        """The place of every module, by its step's name or, for a stitching layer, by each of its joins."""
        return {name: place for place, module in enumerate(self.modules) for name in module.joins or [module.step]}

    @cached_property
    def _depths(self) -> dict[str, int]:
        """How many blocks every anchor has, counted from 0 to the first that is missing."""
        blocks: dict[str, set[int]] = {}
        for name in self._places:
            anchor, _, block = name.rpartition(".blocks.")
            block = block.removesuffix(LAST)
            if anchor and block.isdecimal():
                blocks.setdefault(anchor, set()).add(int(block))
        return {anchor: _first_missing(numbers) for anchor, numbers in blocks.items()}


def _first_missing(numbers: Iterable[int]) -> int:
    have = set(numbers)
    return next(number for number in range(len(have) + 1) if number not in have)
