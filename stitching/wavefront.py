"""Several stitches in one batch: rows that stand at the same step run it together.

Cellular batching (Gao et al., EuroSys 2018) applied to stitched networks. `schedule` decides, once for a set of paths;
`run_mixed` only follows. Rows are laid so that those who go on together lie together: then a step's input is a slice of
an earlier output, and rows are copied only where they come together from different steps.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

StepKind = TypeVar("StepKind", bound=Hashable)

Through = Callable[[StepKind, Tensor, bool], Tensor]
"""How a step is called: through(step, input, passing) -> output; `passing` as in Call."""

IMAGES = -1
"""The source of what has not been through any call yet."""


def order(paths: Sequence[Sequence[StepKind]]) -> list[tuple[StepKind, frozenset[int]]]:
    """The order of steps for several paths, each step with the indices of the paths that take part in it.

    A step runs once everybody who will ever need it stands at it. Where paths wait for one another in a circle
    (small to large beside large to small), the step with the most paths waiting goes first.
    """
    ahead = Counter(step for path in paths for step in path)
    waiting: dict[StepKind, set[int]] = {}
    position = [0] * len(paths)
    for index, path in enumerate(paths):
        if path:
            waiting.setdefault(path[0], set()).add(index)
    calls: list[tuple[StepKind, frozenset[int]]] = []
    while waiting:
        complete = [step for step, members in waiting.items() if len(members) == ahead[step]]
        for step in complete or [max(waiting, key=lambda step: len(waiting[step]))]:
            members = waiting.pop(step)
            calls.append((step, frozenset(members)))
            ahead[step] -= len(members)
            for index in members:
                position[index] += 1
                if position[index] < len(paths[index]):
                    waiting.setdefault(paths[index][position[index]], set()).add(index)
    return calls


@dataclass(frozen=True)
class Part:
    """Rows of one tensor: those of `groups`, which lie behind those of the groups `before`.

    `source` is the number of the call that gave the tensor; `whole` when nothing lies before or behind.
    """

    source: int
    before: tuple[int, ...]
    groups: tuple[int, ...]
    whole: bool


@dataclass(frozen=True)
class Call(Generic[StepKind]):
    """One call: the step, the parts that make its input in this order, and the tensors not needed thereafter.

    `passing`: the next call takes all of the output as it is, and nobody else takes any of it.
    """

    step: StepKind
    parts: tuple[Part, ...]
    done: tuple[int, ...]
    passing: bool


@dataclass(frozen=True)
class Schedule(Generic[StepKind]):
    """The calls for some paths, a group of rows each. Says nothing of how many rows a group has.

    `first` is the order in which the groups lie among the images, `last` that of the outputs, made of `outputs`.
    """

    first: tuple[int, ...]
    calls: tuple[Call[StepKind], ...]
    outputs: tuple[Part, ...]
    last: tuple[int, ...]


def schedule(paths: Sequence[Sequence[StepKind]]) -> Schedule[StepKind]:
    """The schedule of these paths, one group each; at least one path."""
    calls = order(paths)
    ahead: list[list[int]] = [[] for _ in paths]
    for number, (_, members) in enumerate(calls):
        for group in members:
            ahead[group].append(number)
    layout = _Layout(ahead)
    first = layout.cohorts[0].groups
    gathered = [layout.gather(number, members) for number, (_, members) in enumerate(calls)]
    everyone = frozenset(range(len(paths)))
    outputs, _ = layout.gather(len(calls), everyone)
    following = [*(parts for parts, _ in gathered[1:]), outputs]
    planned = tuple(
        Call(step, *found, passing=len(after) == 1 and after[0].whole and after[0].source == number)
        for number, ((step, _), found, after) in enumerate(zip(calls, gathered, following, strict=True))
    )
    return Schedule(first, planned, outputs, layout.cohorts[0].groups)


class _Cohort:
    """The groups whose rows lie in one tensor, in this order; those not `staying` have gone on to another."""

    def __init__(self, source: int, groups: tuple[int, ...]) -> None:
        self.source, self.groups, self.staying = source, groups, frozenset(groups)


class _Layout:
    """Where the groups lie while the calls are planned, each in the cohort of its last call.

    `ahead` are the numbers of the calls each group takes part in.
    """

    def __init__(self, ahead: Sequence[list[int]]) -> None:
        self._ahead = ahead
        everyone = _Cohort(IMAGES, self._together(range(len(ahead)), IMAGES))
        self.cohorts = [everyone] * len(ahead)

    def gather(self, number: int, members: frozenset[int]) -> tuple[tuple[Part, ...], tuple[int, ...]]:
        """The parts that bring a call's members together, and the sources that nobody needs thereafter."""
        cohort = self.cohorts[next(iter(members))]
        if cohort.staying == members and len(cohort.groups) == len(members):  # as after most blocks
            part = Part(cohort.source, (), cohort.groups, whole=True)
            cohort.source = number
            return (part,), (part.source,)
        left = list({id(cohort): cohort for cohort in map(self.cohorts.__getitem__, members)}.values())
        runs, parts = self._collected(number, members, left)
        together = _Cohort(number, tuple(group for run in runs for group in run))
        for cohort in left:
            cohort.staying -= members
        for group in members:
            self.cohorts[group] = together
        return parts, tuple(cohort.source for cohort in left if not cohort.staying)

    def _collected(
        self, number: int, members: frozenset[int], cohorts: Sequence[_Cohort]
    ) -> tuple[list[list[int]], tuple[Part, ...]]:
        """The members in runs that lie side by side, and these as parts."""
        places = {
            group: (cohort, at)
            for cohort in sorted(cohorts, key=lambda cohort: cohort.source, reverse=True)
            for at, group in enumerate(cohort.groups)
            if group in members and group in cohort.staying
        }
        runs = _runs(places, places)
        if len(runs) > 1:  # they are copied anyhow: the best moment to bring them in order
            runs = _runs(self._together(members, number), places)
        return runs, tuple(_part(*places[run[0]], tuple(run)) for run in runs)

    def _together(self, groups: Iterable[int], number: int) -> tuple[int, ...]:
        """The groups, those side by side whose ways part latest after this call."""
        return tuple(sorted(groups, key=lambda group: self._after(group, number)))

    def _after(self, group: int, number: int) -> list[int]:
        calls = self._ahead[group]
        return calls[bisect_right(calls, number) :]


def _runs(groups: Iterable[int], places: Mapping[int, tuple[_Cohort, int]]) -> list[list[int]]:
    """The groups cut where the next one does not lie right behind."""
    runs: list[list[int]] = []
    behind = None
    for group in groups:
        cohort, at = places[group]
        if behind == (cohort, at):
            runs[-1].append(group)
        else:
            runs.append([group])
        behind = cohort, at + 1
    return runs


def _part(cohort: _Cohort, at: int, groups: tuple[int, ...]) -> Part:
    return Part(cohort.source, cohort.groups[:at], groups, whole=len(groups) == len(cohort.groups))


def run_mixed(
    images: Tensor, rows: Sequence[Sequence[int]], plan: Schedule[StepKind], through: Through[StepKind]
) -> Tensor:
    """Images (N, ...) and a schedule whose group i has the images' `rows[i]` -> outputs (N, ...) in the images' order.

    Every image must be in one group. `through` runs the steps, for example on a device that has recorded them.
    """
    sizes = [len(group) for group in rows]
    tensors = {IMAGES: _reordered(images, [row for group in plan.first for row in rows[group]])}
    for number, call in enumerate(plan.calls):
        x = _collected(tensors, call.parts, sizes)
        for source in call.done:
            del tensors[source]
        tensors[number] = through(call.step, x, call.passing)
        del x
    found = [row for group in plan.last for row in rows[group]]
    return _reordered(_collected(tensors, plan.outputs, sizes), sorted(range(len(found)), key=found.__getitem__))


def _collected(tensors: Mapping[int, Tensor], parts: Sequence[Part], sizes: Sequence[int]) -> Tensor:
    taken = [
        tensors[part.source]
        if part.whole
        else tensors[part.source].narrow(0, sum(sizes[g] for g in part.before), sum(sizes[g] for g in part.groups))
        for part in parts
    ]
    return taken[0] if len(taken) == 1 else torch.cat(taken)


def _reordered(rows: Tensor, places: list[int]) -> Tensor:
    if places == list(range(len(places))):
        return rows
    # From pinned memory, or the copy would wait for all that the device was asked before.
    index = torch.tensor(places, pin_memory=rows.is_cuda)
    return rows[index.to(rows.device, non_blocking=True)]
