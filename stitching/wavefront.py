"""Several stitches in one batch: rows that stand at the same step run it together.

Cellular batching (Gao et al., EuroSys 2018) applied to stitched networks.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

StepKind = TypeVar("StepKind", bound=Hashable)


def order(paths: Sequence[Sequence[StepKind]]) -> list[tuple[StepKind, frozenset[int]]]:
    """The order of steps for several paths, each step with the indices of the paths that take part in it.

    A step runs once everybody who will ever need it stands at it. Where paths wait for one another in a circle
    (small to large beside large to small), the step with the most paths waiting goes first.
    """
    position = [0] * len(paths)
    ahead = Counter(step for path in paths for step in path)
    calls: list[tuple[StepKind, frozenset[int]]] = []
    while +ahead:
        waiting: dict[StepKind, set[int]] = {}
        for index, path in enumerate(paths):
            if position[index] < len(path):
                waiting.setdefault(path[position[index]], set()).add(index)
        complete = [step for step, members in waiting.items() if len(members) == ahead[step]]
        for step in complete or [max(waiting, key=lambda step: len(waiting[step]))]:
            calls.append((step, frozenset(waiting[step])))
            ahead[step] -= len(waiting[step])
            for index in waiting[step]:
                position[index] += 1
    return calls


class Cohort(NamedTuple):
    """Groups of rows whose features lie in one tensor, in the order of `groups`."""

    groups: tuple[int, ...]
    features: Tensor


def run_mixed(images: Tensor, paths: Sequence[Sequence[Callable[[Tensor], Tensor]]]) -> Tensor:
    """Images (N, ...) and one path of steps per row -> outputs (N, ...) in the rows' order.

    Rows with equal paths travel as one group. Raises ValueError when there is not one path per row.
    """
    if len(paths) != len(images):
        raise ValueError(f"{len(images)} images but {len(paths)} stitches: a mixed batch needs one stitch per row")
    rows_of: dict[tuple[Callable[[Tensor], Tensor], ...], list[int]] = {}
    for row, path in enumerate(paths):
        rows_of.setdefault(tuple(path), []).append(row)
    sizes = [len(rows) for rows in rows_of.values()]
    everyone = frozenset(range(len(sizes)))
    permutation = torch.tensor([row for rows in rows_of.values() for row in rows], device=images.device)
    cohorts = [Cohort(tuple(everyone), images[permutation])]
    for step, groups in order(list(rows_of)):
        together, cohorts = _gather(cohorts, groups, sizes)
        cohorts.append(Cohort(together.groups, step(together.features)))
    together, _ = _gather(cohorts, everyone, sizes)
    rows = [row for group in together.groups for row in list(rows_of.values())[group]]
    return together.features[torch.tensor(rows, device=images.device).argsort()]


def _gather(cohorts: Sequence[Cohort], wanted: frozenset[int], sizes: Sequence[int]) -> tuple[Cohort, list[Cohort]]:
    """One cohort of the wanted groups, and what is left of the others. Copies only where features lie apart."""
    parts = [part for cohort in cohorts for part in _split(cohort, wanted, sizes)]
    taken = [part for part in parts if part.groups[0] in wanted]
    left = [part for part in parts if part.groups[0] not in wanted]
    if len(taken) == 1:
        return taken[0], left
    groups = tuple(group for part in taken for group in part.groups)
    return Cohort(groups, torch.cat([part.features for part in taken])), left


def _split(cohort: Cohort, wanted: frozenset[int], sizes: Sequence[int]) -> Iterable[Cohort]:
    """The cohort cut, without copying, into runs of groups that are all wanted or all not."""
    start = 0
    for _, run in groupby(cohort.groups, key=lambda group: group in wanted):
        groups = tuple(run)
        rows = sum(sizes[group] for group in groups)
        yield Cohort(groups, cohort.features.narrow(0, start, rows))
        start += rows
