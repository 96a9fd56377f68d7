"""What the server answers with, typed. Units as on the wire: `_ms`, top-1 in percent, FLOPs are multiply-adds.

Members that a newer server adds are kept as attributes too.
"""

from pydantic import BaseModel, ConfigDict


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Prediction(_Result):
    """One class and its probability, 0 to 1."""

    label: str
    index: int
    probability: float


class Stitch(_Result):
    """A stitch: its id, its route, its cost and what it is worth, None where nobody measured that."""

    id: int
    name: str
    flops: int
    top1: float | None


class BudgetUsed(_Result):
    """The budget as the server understood it, its own SLO as the deadline where none was sent, and if it was kept."""

    max_flops: float | None
    deadline_ms: float
    min_top1: float | None
    met: bool


class Timing(_Result):
    """Milliseconds inside the server."""

    decode: float
    queue: float
    compute: float
    total: float


class Classification(_Result):
    """The answer to one image: likeliest classes first.

    `tries` is how often it was sent; `downgraded` says that what was answered is a cheaper budget than the one asked
    for, and `budget` which one.
    """

    predictions: tuple[Prediction, ...]
    stitch: Stitch
    reason: str
    budget: BudgetUsed
    timing_ms: Timing
    model: str
    request_id: str
    tries: int = 1
    downgraded: bool = False

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.predictions[0].label


class Explanation(_Result):
    """The stitch that a budget would get now, why, and how long it is expected to take alone."""

    stitch: Stitch
    reason: str
    predicted_ms: float
    admitted: int


class ListedStitch(Stitch):
    """A stitch in the lookup table; `latency_ms` for one image on the server's device."""

    params: int
    latency_ms: float | None
    anchor: bool
    frontier: bool


class Stitches(_Result):
    """The server's lookup table."""

    model: str
    device: str
    top1_source: str
    flops_convention: str
    stitches: tuple[ListedStitch, ...]


class Status(_Result):
    """What the server is doing; the rest of what it tells is in `model_extra`."""

    model: str
    device: str
    policy: str
    ready: bool
    queued: int
    inside: int
    level: Stitch
    drift: float
    headroom: float
    slo_ms: float
