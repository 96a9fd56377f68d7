"""What the routes answer with. Wire names carry their units: `_ms`, top-1 in percent; FLOPs are multiply-adds.

An answer's own parts are dataclasses, which are made and written in less than half the time that models take.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lookup_tables.table import Entry, LookupTable
from server.nvml import GpuLoad

KEPT = 1024  # stitches that need not be described again
DecoderName = Literal["nvjpeg", "turbo", "exact"]


@dataclass(slots=True)
class Prediction:
    """One class and its probability."""

    label: Annotated[str, Field(examples=["42"])]
    index: int
    probability: float


@dataclass(slots=True)
class StitchUsed:
    """The stitch that answered."""

    __pydantic_config__ = ConfigDict()  # not that of the models it is in

    id: int
    name: Annotated[str, Field(description="its route", examples=["digits_s[0:3]>digits_m[3:8]"])]
    flops: Annotated[int, Field(description="multiply-adds for one image, as fvcore counts them")]
    top1: Annotated[float | None, Field(description="percent; null where nothing was measured or published")]

    @staticmethod
    @lru_cache(KEPT)
    def of(entry: Entry) -> "StitchUsed":
        """From the table's entry."""
        return StitchUsed(entry.stitch, entry.route, entry.flops, percent(entry.top1))


@dataclass(slots=True)
class StitchListed(StitchUsed):
    """A stitch in the lookup table."""

    params: int
    latency_ms: Annotated[float | None, Field(description="median for one image on this device, or interpolated")]
    anchor: Annotated[bool, Field(description="whether it is one anchor alone")]
    frontier: Annotated[bool, Field(description="whether no cheaper stitch is as accurate")]


@dataclass(slots=True)
class BudgetUsed:
    """What the request allowed, and whether the answer kept to it."""

    max_flops: float | None
    deadline_ms: float
    min_top1: float | None
    met: bool


@dataclass(slots=True)
class Timing:
    """Where the time went."""

    decode: float
    queue: float
    compute: float
    total: float


@dataclass(slots=True)
class Classification:
    """The answer to one image."""

    predictions: list[Prediction]
    stitch: StitchUsed
    reason: Annotated[str, Field(examples=["best stitch within 20 MFLOPs"])]
    budget: BudgetUsed
    timing_ms: Timing
    model: str
    request_id: str


class Classifications(BaseModel):
    """One result per image, in the order sent."""

    results: list["Classification | Problem"]


class Explanation(BaseModel):
    """The stitch that a budget would get now."""

    stitch: StitchUsed
    reason: str
    predicted_ms: float
    admitted: int = Field(description="how many frontier stitches the budget admits")


class Stitches(BaseModel):
    """The lookup table."""

    model: str
    device: str
    top1_source: str
    flops_convention: str
    stitches: list[StitchListed]


class DecoderUsed(BaseModel):
    """What decodes JPEGs, and how it came to that."""

    name: DecoderName
    reason: str = Field(examples=["the engine is on no CUDA GPU"])
    failed: int = Field(description="files that nvJPEG failed at; libjpeg-turbo decoded them")
    failure: str | None = Field(description="what the last of these failed with")


class Status(BaseModel):
    """What the server is doing."""

    model: str
    device: str
    policy: str
    decoder: DecoderUsed
    ready: bool
    queued: int
    arriving: int = Field(description="requests whose body is on its way in")
    inside: int = Field(description="images admitted and not yet answered")
    level: StitchUsed = Field(description="the dearest stitch that the last batch could afford")
    drift: float = Field(description="observed over profiled latency")
    drift_upper: float = Field(description="the same with the margin that is planned with")
    pad_ms: float = Field(description="what a batch is planned to lose beside that")
    headroom: float = Field(description="share of the device that others leave to this server")
    cpu_busy: float
    cpu_ours: float
    memory_available: int = Field(description="bytes")
    gpu: GpuLoad | None = Field(description="what NVML tells, where there is a GPU")
    slo_ms: float


class Happening(BaseModel):
    """What the server is doing, and what came of requests since the reading before."""

    at: float = Field(description="seconds by a clock of the server that nobody sets; for differences")
    ready: bool
    queued: int
    inside: int
    level: StitchUsed
    answered_per_second: float = Field(description="images")
    refused_per_second: float = Field(description="images refused for load")
    top1_served: float | None = Field(description="percent, mean of the stitches that answered; null without any")
    slo_met: float | None = Field(description="percent of the answers; null without any")
    headroom: float
    cpu_busy: float
    cpu_ours: float
    gpu_busy: float | None


class StepListed(BaseModel):
    """A part of a network that a route may pass."""

    name: str = Field(examples=["digits_s.blocks.0"])
    flops: int | None = Field(description="multiply-adds for one image; null where the table does not say")
    latency_ms: float | None = Field(description="for one image on this device; null where parts were not measured")


class BlockListed(StepListed):
    """A block of an anchor."""

    stage: int
    width: int = Field(description="of the features behind it")


class AnchorListed(BaseModel):
    """An anchor, in the order of its parts."""

    name: str
    stem: StepListed
    blocks: list[BlockListed]
    head: StepListed


class JoinListed(StepListed):
    """A stitching layer: what lies between two anchors."""

    places: list[str] = Field(description="where it stands", examples=[["digits_s[:3]>digits_m[3:]"]])
    width_in: int
    width_out: int


class Anatomy(BaseModel):
    """What the stitches are made of."""

    model: str
    anchors: list[AnchorListed]
    joins: list[JoinListed]


class Problem(BaseModel):
    """A refusal (RFC 9457); further members help a program."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


class ProtocolError(BaseModel):
    """A refusal as the Open Inference Protocol has it, with the members of a Problem."""

    model_config = ConfigDict(extra="allow")

    error: str


class Fault(BaseModel):
    """A parameter, or member of the body, and what is wrong with it."""

    field: str
    reason: str


class RequestProblem(Problem):
    """Refused with 422; what the refusal is about is there."""

    field: str | None = Field(None, description="what is wrong")
    grammar: str | None = Field(None, description="what the field takes")
    errors: list[Fault] | None = Field(None, description="every fault that was found")
    nearest_stitch: int | None = Field(None, description="the stitch that comes closest to a budget that none meets")
    nearest: StitchUsed | None = None


class TooLargeProblem(Problem):
    """Refused with 413; what was too much is there, and how much may be."""

    bytes: int | None = None
    max_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    max_pixels: int | None = None


class UnsupportedProblem(Problem):
    """Refused with 415."""

    accepted: list[str] = Field(description="the types that are")


class DeadlineProblem(Problem):
    """Refused with 504."""

    stage: Literal["receive", "decode", "queue"] = Field(description="where most of the time went")
    receive_ms: float = Field(description="until the body had come")
    decode_ms: float
    queue_ms: float = Field(description="waiting to be decoded, and then for the engine")


def percent(fraction: float | None) -> float | None:
    """A fraction as percent, without the noise of binary floats."""
    return None if fraction is None else round(fraction * 100, 4)


def listed(table: LookupTable, frontier_only: bool, device: str) -> Stitches:
    """The table as its route shows it."""
    frontier = {entry.stitch for entry in table.frontier()}
    shown = [entry for entry in table.entries if not frontier_only or entry.stitch in frontier]
    return Stitches(
        model=table.family.name,
        device=device,
        top1_source=table.family.top1.source,
        flops_convention=table.family.flops.convention,
        stitches=[
            StitchListed(
                **asdict(StitchUsed.of(entry)),
                params=entry.params,
                latency_ms=round(table.seconds(entry.stitch) * 1e3, 4) if table.latency else None,
                anchor=entry.anchor is not None,
                frontier=entry.stitch in frontier,
            )
            for entry in shown
        ],
    )
