"""Who is compared."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

CAN_COPY = {"mosec", "triton"}  # run the network in several processes where they are told to


@dataclass(frozen=True)
class Contestant:
    """A server, what is inside, and where it is told how many processes: stitchserve's front ends, others' workers."""

    name: str
    inside: str
    processes: int | None = None

    @property
    def ours(self) -> bool:
        """Whether it is stitchserve."""
        return self.name == "stitchserve"

    @property
    def label(self) -> str:
        """What it is called in the results."""
        told = "front ends" if self.ours else "copies"
        return self.name if self.processes is None else f"{self.name}, {self.processes} {told}"


def contestants(task: str, options: argparse.Namespace) -> Iterator[Contestant]:
    """Who is measured, and what is inside; with what all are compared comes first."""
    if task == "deit":
        yield Contestant("bare", "engine")
    for name in options.servers:
        ours = name == "stitchserve"
        counts = options.frontends if ours else options.copies if name in CAN_COPY else None
        for inside in options.inside if not ours and task != "noop" else ["engine"]:
            for count in counts or [None]:
                yield Contestant(name, inside, count)
