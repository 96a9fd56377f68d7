"""What one request allows, and the grammar it is written in: `2GFLOPs`, `15ms`, `78%`."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn

from server.errors import BadBudget

GRAMMAR = (
    "a budget is one or more of '2GFLOPs' (or MFLOPs, GMACs, ...: multiply-adds, the papers' convention), "
    "'15ms' (or s, us) and '78%' (least top-1), each at most once, separated by commas"
)
LONGEST_DEADLINE = 3600.0  # seconds

WANTED: Mapping[str, str] = {
    "budget": GRAMMAR,
    "max_flops": "give the FLOPs (multiply-adds) of one image that are allowed, a plain number as in 2e9",
    "deadline_ms": "give the milliseconds from the request's arrival to its answer, a plain number as in 15",
    "min_top1": "give the least top-1 in percent, a plain number as in 78",
    "stitch": "give the id of one stitch, a whole number; GET /stitches lists them",
}
"""What every field takes, for people."""

_LONGEST_TEXT = 200  # characters, before anything is parsed
_QUOTED = 40  # characters of an offending text that an error repeats
# Bounded digits: nothing a client writes makes parsing slow. A '+' in a URL arrives as a space, so '2e+9' as '2e 9'.
_MANTISSA, _EXPONENT = r"(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})", "[-+ ]?[0-9]{1,4}"
_NUMBER = rf"(?P<mantissa>{_MANTISSA})(?:e(?P<exponent>{_EXPONENT}))?"
_PLAIN = re.compile(rf" ?{_NUMBER} ?", re.IGNORECASE)
_TERM = re.compile(rf" *{_NUMBER} *(?P<unit>[a-z]{{1,6}}|%) *", re.IGNORECASE)
_STITCH = re.compile(r"[0-9]{1,9}")

_FLOPS, _DEADLINE, _TOP1 = "max_flops", "deadline", "min_top1"
# unit -> (field of Budget, power of ten to FLOPs, seconds or a fraction)
_UNITS: Mapping[str, tuple[str, int]] = {
    "%": (_TOP1, -2),
    "s": (_DEADLINE, 0),
    "ms": (_DEADLINE, -3),
    "us": (_DEADLINE, -6),
} | {
    prefix + noun: (_FLOPS, power)
    for prefix, power in (("", 0), ("k", 3), ("m", 6), ("g", 9), ("t", 12))
    for noun in ("flop", "flops", "mac", "macs")
}
# In the words that JSON Schema and Python share, which have no groups with names and no flags.
_ANY_UNIT = "(?:[kKmMgGtT]?(?:[fF][lL][oO][pP]|[mM][aA][cC])[sS]?|[mMuU]?[sS]|%)"
_ANY_TERM = rf" *{_MANTISSA}(?:[eE]{_EXPONENT})? *{_ANY_UNIT} *"
PATTERN = rf"^{_ANY_TERM}(?:,{_ANY_TERM})*$"
"""A regular expression that the texts of every sound `budget` match."""


@dataclass(frozen=True)
class Budget:
    """What one request allows; None is no limit.

    `max_flops` in FLOPs (multiply-adds), `deadline` in seconds from the request's arrival to its answer, `min_top1` as
    a fraction, `stitch` the id of the one stitch to use.
    """

    max_flops: float | None = None
    deadline: float | None = None
    min_top1: float | None = None
    stitch: int | None = None

    def met_by(self, flops: float, top1: float | None) -> bool:
        """Whether a stitch with these FLOPs and this top-1 (None: not known) keeps to the caps."""
        cheap = self.max_flops is None or flops <= self.max_flops
        return cheap and (self.min_top1 is None or (top1 is not None and top1 >= self.min_top1))

    def terms(self) -> tuple[str, ...]:
        """The terms that `parse` reads back to exactly this budget, the pinned stitch apart: `("2GFLOPs", "15ms")`."""
        written = []
        if self.max_flops is not None:
            prefix, power = ("G", -9) if self.max_flops >= 1e9 else ("M", -6)
            written.append(f"{_shifted(self.max_flops, power)}{prefix}FLOPs")
        if self.deadline is not None:
            written.append(f"{_shifted(self.deadline, 3)}ms")
        if self.min_top1 is not None:
            written.append(f"{_shifted(self.min_top1, 2)}%")
        return tuple(written)


def parse(
    budgets: Sequence[str] = (),
    *,
    max_flops: str | None = None,
    deadline_ms: str | None = None,
    min_top1: str | None = None,
    stitch: str | None = None,
) -> Budget:
    """The budget that a request's texts ask for: terms, and plain numbers in FLOPs, milliseconds and percent.

    BadBudget names the field, quotes the text and says what is wanted; also for the same limit twice, in whatever form.
    """
    found: dict[str, tuple[str, float]] = {}
    for text in budgets:
        _check_length("budget", text)
        for term in text.split(","):
            _add(found, term, *_read_term(term))
    plain = (
        ("max_flops", max_flops, _FLOPS, 0),
        ("deadline_ms", deadline_ms, _DEADLINE, -3),
        ("min_top1", min_top1, _TOP1, -2),
    )
    for field, number, limit, power in plain:
        if number is not None:
            _add(found, f"{field}={number}", limit, _read_number(field, number, limit, power))
    pinned = None if stitch is None else _read_stitch(stitch)
    values = {limit: value for limit, (_, value) in found.items()}
    return Budget(values.get(_FLOPS), values.get(_DEADLINE), values.get(_TOP1), pinned)


def _add(found: dict[str, tuple[str, float]], text: str, limit: str, value: float) -> None:
    if limit in found:
        first, second = _quote(found[limit][0]), _quote(text)
        raise BadBudget(f"budget: {first} and {second} both set {limit}; {GRAMMAR}", field="budget", grammar=GRAMMAR)
    found[limit] = (text, value)


def _read_term(term: str) -> tuple[str, float]:
    match = _TERM.fullmatch(term)
    if match is None:
        _refuse("budget", term, "is not a number with a unit")
    limit, power = _UNITS.get(match["unit"].lower(), (None, 0))
    if limit is None:
        _refuse("budget", term, f"has the unknown unit {match['unit']}")
    return limit, _value("budget", term, match, limit, power)


def _read_number(field: str, text: str, limit: str, power: int) -> float:
    _check_length(field, text)
    match = _PLAIN.fullmatch(text)
    if match is None:
        _refuse(field, text, "is not a positive number")
    return _value(field, text, match, limit, power)


def _value(field: str, text: str, match: re.Match[str], limit: str, power: int) -> float:
    # Moving the decimal point in the text, not multiplying, rounds once: 75.63% is the same float as 0.7563.
    exponent = int(match["exponent"] or "0") + power
    value = float(f"{match['mantissa']}e{exponent}")
    if not math.isfinite(value):
        _refuse(field, text, "is too large")
    if value == 0 and limit != _TOP1:
        _refuse(field, text, "must be more than zero")
    if limit == _TOP1 and value > 1:
        _refuse(field, text, "is more than 100%")
    if limit == _DEADLINE and value > LONGEST_DEADLINE:
        _refuse(field, text, f"is more than {LONGEST_DEADLINE:.0f}s")
    return value


def _read_stitch(text: str) -> int:
    if _STITCH.fullmatch(text) is None:
        _refuse("stitch", text, "is not a stitch id")
    return int(text)


def _check_length(field: str, text: str) -> None:
    if len(text) > _LONGEST_TEXT:
        _refuse(field, text, f"is longer than {_LONGEST_TEXT} characters")


def _refuse(field: str, text: str, reason: str) -> NoReturn:
    raise BadBudget(f"{field}: {_quote(text)} {reason}; {WANTED[field]}", field=field, grammar=WANTED[field])


def _quote(text: str) -> str:
    """ASCII and escaped, so that it is safe in logs and headers."""
    return ascii(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")


def _shifted(value: float, power: int) -> str:
    """`value` times ten to `power`, in decimal and exact: repr's digits with the point moved."""
    moved = Decimal(repr(value)).scaleb(power).normalize()
    return f"{moved:f}" if -6 <= moved.adjusted() <= 12 else f"{moved:e}"
