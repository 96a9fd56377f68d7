"""When requests arrive: traces drawn from published parameters, or read from a file.

Every generator draws a renewal process of mean gap 1 (gamma-distributed gaps with a given squared coefficient of
variation) and runs its clock by the rate wanted at each time, so that bursts and a changing rate combine.

The ramps are SuperServe's (NSDI'25, section 6): from 2,500 requests/s with accelerations of 250, 500 and 5,000
requests/s^2, on eight GPUs. Its stops of 4,800 and 7,800 requests/s are the loads 0.5 and 0.8 here, so that its system
counts as a capacity of 9,750 requests/s and everything else is scaled by capacity / 9,750.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
Knots = Sequence[tuple[float, float]]
"""(second, requests/s), ascending; the rate is linear between two knots and jumps where two share a second."""

SUPERSERVE_CAPACITY = 9_750.0  # requests/s
SUPERSERVE_START = 2_500.0  # requests/s
MOST_ARRIVALS = 20_000_000
DEFAULT_SECONDS = 60.0
_LONGEST_LINE = 200  # characters; a file without line ends is not read whole

PRESETS: tuple[str, ...] = (
    *(f"gamma:cv2={cv2},load={load}" for cv2 in (2, 4, 8) for load in (0.3, 0.5, 0.75)),
    *(f"ramp:to={load},tau={tau}" for load in (0.5, 0.8) for tau in (250, 500, 5000)),
)
"""The 15 traces on which policies are compared, as specs for `trace`."""

# Requests in each hour of a day, in no unit: a quiet night, a plateau by day, a peak in the evening. Drawn by hand.
_HOURS = (62, 48, 38, 33, 32, 38, 55, 80, 102, 116, 124, 128, 127, 126, 127, 128, 127, 125, 128, 136, 142, 136, 114, 86)


@dataclass(frozen=True, eq=False)
class Trace:
    """Arrivals in ascending seconds (the first at 0 or later) of a replay that lasts `seconds`. ValueError if not."""

    name: str
    arrivals: Times
    seconds: float

    def __post_init__(self) -> None:
        times = self.arrivals
        if not (times.ndim == 1 and len(times) and times[0] >= 0 and np.isfinite(times).all()):
            raise ValueError(f"trace {self.name}: give at least one arrival, all finite and none before 0")
        if (np.diff(times) < 0).any() or not times[-1] <= self.seconds < math.inf:
            raise ValueError(f"trace {self.name}: arrivals must ascend and end by {self.seconds} s")

    @property
    def rate(self) -> float:
        """Requests per second, on average."""
        return len(self.arrivals) / self.seconds


def gamma(rate: float, seconds: float, generator: np.random.Generator, cv2: float) -> Times:
    """Gaps from a gamma distribution: mean 1 / `rate`, squared coefficient of variation `cv2`."""
    return arrivals([(0, rate), (seconds, rate)], generator, cv2)


def poisson(rate: float, seconds: float, generator: np.random.Generator) -> Times:
    """Arrivals that know nothing of each other: gamma with a squared coefficient of variation of 1."""
    return gamma(rate, seconds, generator, cv2=1)


def constant(rate: float, seconds: float) -> Times:
    """One arrival every 1 / `rate` seconds."""
    _check_count(rate * seconds)
    return np.arange(math.ceil(rate * seconds)) / rate


def ramp(
    start: float, stop: float, acceleration: float, seconds: float, generator: np.random.Generator, *, cv2: float = 1
) -> Times:
    """From `start` requests/s, held for a tenth of the time, to `stop` at `acceleration` requests/s^2, then held."""
    begins = seconds / 10
    ends = begins + abs(stop - start) / acceleration
    return arrivals(_until([(0, start), (begins, start), (ends, stop), (math.inf, stop)], seconds), generator, cv2)


def day(rate: float, seconds: float, generator: np.random.Generator, cv2: float = 2) -> Times:
    """A day squeezed into `seconds`, from midnight on, of `rate` requests/s on average, 1.4 times at its peak."""
    hours = np.array([*_HOURS, _HOURS[0]], dtype=np.float64)
    rates = rate * hours / np.mean((hours[1:] + hours[:-1]) / 2)
    return arrivals(list(zip(np.linspace(0, seconds, len(hours)), rates, strict=True)), generator, cv2)


def step(
    base: float, peak: float, length: float, seconds: float, generator: np.random.Generator, *, cv2: float = 1
) -> Times:
    """`base` requests/s, in the middle `peak` requests/s for `length` seconds, then `base` again."""
    begins = (seconds - length) / 2
    if begins < 0:
        raise ValueError(f"for={length:g}: the trace lasts {seconds:g} s; give fewer, or more --seconds")
    ends = begins + length
    knots = [(0, base), (begins, base), (begins, peak), (ends, peak), (ends, base), (seconds, base)]
    return arrivals(knots, generator, cv2)


def arrivals(knots: Knots, generator: np.random.Generator, cv2: float) -> Times:
    """Arrivals at the rates that `knots` draw; the first at the first moment with any rate. ValueError if too many."""
    times, rates = np.array(knots, dtype=np.float64).T
    areas = np.concatenate([[0.0], np.cumsum(np.diff(times) * (rates[1:] + rates[:-1]) / 2)])
    _check_count(areas[-1])
    clock = _renewals(areas[-1], generator, cv2)
    piece = np.minimum(np.searchsorted(areas, clock, side="right") - 1, len(times) - 2)
    slope = np.diff(rates)[piece] / np.diff(times)[piece]
    area, start = clock - areas[piece], rates[piece]
    # The root of start * x + slope * x^2 / 2 = area, in the form that stands a slope of 0.
    root = np.sqrt(np.maximum(start**2 + 2 * slope * area, 0))
    inside = np.divide(2 * area, start + root, out=np.zeros_like(area), where=area > 0)
    return np.asarray(np.maximum.accumulate(np.minimum(times[piece] + inside, times[-1])))


def _check_count(count: float) -> None:
    if not 1 <= count <= MOST_ARRIVALS:
        raise ValueError(f"{count:.3g} arrivals; change load or seconds for 1 to {MOST_ARRIVALS:,}")


def _renewals(end: float, generator: np.random.Generator, cv2: float) -> Times:
    """Ascending from 0 to below `end`, with gaps of mean 1."""
    drawn, last = [np.zeros(1)], 0.0
    while last < end:
        size = int(end - last) + 100
        gaps = generator.gamma(1 / cv2, cv2, size) if cv2 else np.ones(size)
        drawn.append(last + np.cumsum(gaps))
        last = drawn[-1][-1]
    clock = np.concatenate(drawn)
    return np.asarray(clock[clock < end])


def _until(knots: Knots, seconds: float) -> Knots:
    """The knots, cut at `seconds`."""
    kept = [knots[0]]
    for (left, low), (right, high) in pairwise(knots):
        if right >= seconds:
            share = 0.0 if math.isinf(right) else (seconds - left) / (right - left)
            return [*kept, (seconds, low + share * (high - low))]
        kept.append((right, high))
    return kept


def from_csv(path: Path, seconds: float | None = None) -> Trace:
    """One column of ascending seconds, with or without the header `seconds`; the first becomes 0.

    Those before `seconds`, or all. ValueError names the file, the line and the remedy.
    """
    found: list[float] = []
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), ""), 1):
            text = line.strip()
            if len(line) == _LONGEST_LINE:
                raise ValueError(f"{path}: line {number} is too long; give one time in seconds a line")
            if not text or (number == 1 and text.strip('"').lower() == "seconds"):
                continue
            found.append(_second(path, number, text, found[-1] if found else -math.inf))
            if len(found) > MOST_ARRIVALS:
                raise ValueError(f"{path}: line {number}: more than {MOST_ARRIVALS:,} arrivals; split the file")
    if not found:
        raise ValueError(f"{path}: no arrivals; give one time in seconds a line")
    times = np.array(found) - found[0]
    whole = times[-1] * len(times) / (len(times) - 1) if times[-1] > 0 else 1.0
    length = whole if seconds is None else min(whole, seconds)
    return Trace(path.stem, times[times <= length], length)


def _second(path: Path, number: int, text: str, previous: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        shown = ascii(text[:40])
        raise ValueError(f"{path}: line {number}: {shown} is not a time; give one number in seconds a line")
    if value < previous:
        raise ValueError(f"{path}: line {number}: {value:g} comes after {previous:g}; sort the times ascending")
    return value


@dataclass(frozen=True)
class _Kind:
    """How one kind of trace is written: its options with their defaults (None: must be given) and its generator."""

    draw: Callable[[Mapping[str, float], float, float, np.random.Generator], Times]
    options: Mapping[str, float | None] = field(default_factory=dict)


def _ramp(given: Mapping[str, float], capacity: float, seconds: float, generator: np.random.Generator) -> Times:
    acceleration = given["tau"] * capacity / SUPERSERVE_CAPACITY
    start, stop = given["from"] * capacity, given["to"] * capacity
    return ramp(start, stop, acceleration, seconds, generator, cv2=given["cv2"])


_KINDS: Mapping[str, _Kind] = {
    "gamma": _Kind(lambda g, c, s, r: gamma(g["load"] * c, s, r, g["cv2"]), {"cv2": None, "load": None}),
    "poisson": _Kind(lambda g, c, s, r: poisson(g["load"] * c, s, r), {"load": None}),
    "constant": _Kind(lambda g, c, s, _: constant(g["load"] * c, s), {"load": None}),
    "ramp": _Kind(_ramp, {"from": SUPERSERVE_START / SUPERSERVE_CAPACITY, "to": None, "tau": None, "cv2": 1}),
    "day": _Kind(lambda g, c, s, r: day(g["load"] * c, s, r, g["cv2"]), {"load": None, "cv2": 2}),
    "step": _Kind(
        lambda g, c, s, r: step(g["base"] * c, g["peak"] * c, g["for"], s, r, cv2=g["cv2"]),
        {"base": None, "peak": None, "for": None, "cv2": 1},
    ),
}


def _written(name: str, options: Mapping[str, float | None]) -> str:
    return f"{name}:" + ",".join(
        f"{key}={'...' if value is None else f'{value:.3g}'}" for key, value in options.items()
    )


GRAMMAR = "a trace is a .csv file or one of " + " ".join(_written(name, kind.options) for name, kind in _KINDS.items())


def specs(text: str) -> tuple[str, ...]:
    """The specs in a text that separates them by spaces; the word `presets` stands for PRESETS. ValueError for none."""
    if not text.strip():
        raise ValueError(f"no trace given; {GRAMMAR}")
    if text.lower().endswith(".csv") and Path(text).exists():
        return (text,)
    return tuple(spec for word in text.split() for spec in (PRESETS if word == "presets" else (word,)))


def trace(spec: str, capacity: float, seconds: float | None = None, seed: int = 0) -> Trace:
    """The trace that `spec` describes: `gamma:cv2=8,load=0.75`, `ramp:to=0.8,tau=500`, `arrivals.csv` (GRAMMAR).

    Loads (`load`, `base`, `peak`, `from`, `to`) are shares of `capacity` in requests/s and may exceed 1; `tau` is
    SuperServe's, see above; `for` is in seconds. Without `seconds` a file is taken whole and the others last
    DEFAULT_SECONDS. The same spec and seed give the same arrivals. ValueError says what is wrong.
    """
    if spec.lower().endswith(".csv"):
        return from_csv(Path(spec), seconds)
    length = DEFAULT_SECONDS if seconds is None else seconds
    if not (0 < capacity < math.inf and 0 < length < math.inf):
        raise ValueError(f"capacity {capacity:g} requests/s, {length:g} s: both must be more than zero")
    name, _, text = spec.partition(":")
    if name not in _KINDS:
        raise ValueError(f"trace {spec!r}: {GRAMMAR}")
    kind = _KINDS[name]
    given = _options(spec, text, kind.options)
    try:
        times = kind.draw(given, capacity, length, np.random.default_rng(seed))
    except ValueError as error:
        raise ValueError(f"trace {spec!r}: {error}") from None
    return Trace(spec, times, length)


def _options(spec: str, text: str, known: Mapping[str, float | None]) -> Mapping[str, float]:
    given = dict(known)
    for pair in filter(None, text.split(",")):
        key, _, value = pair.partition("=")
        if key not in known:
            raise ValueError(f"trace {spec!r}: no option {key!r}; {GRAMMAR}")
        given[key] = _number(spec, key, value)
    missing = [key for key, value in given.items() if value is None]
    if missing:
        raise ValueError(f"trace {spec!r}: {', '.join(missing)} must be given; {GRAMMAR}")
    return {key: value for key, value in given.items() if value is not None}


def _number(spec: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    least = "0 or more" if key in {"cv2", "base"} else "more than 0"
    if not (0 <= value < math.inf) or (value == 0 and key not in {"cv2", "base"}):
        raise ValueError(f"trace {spec!r}: {key}={text} must be a number {least}")
    return value
