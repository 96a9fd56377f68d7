"""What a request may cost: the server's terms (`2GFLOPs`, `15ms`, `78%`), as text or as numbers.

The server parses; this reads only as much as a client has to know: how long to wait, and what a cheaper budget is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

Terms: TypeAlias = str | Sequence[str]
"""`"2GFLOPs,15ms"` or `["2GFLOPs", "15ms"]`."""

_TERM = re.compile(r"\s*([0-9.]+(?:e[-+]?[0-9]+)?)\s*([a-z]+|%)\s*", re.IGNORECASE)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_FLOPS = re.compile(r"[kmgt]?(flops?|macs?)", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """Terms as text, and the same limits as plain numbers: FLOPs, milliseconds, percent; and the stitch to use."""

    terms: tuple[str, ...] = ()
    max_flops: float | None = None
    deadline_ms: float | None = None
    min_top1: float | None = None
    stitch: int | None = None

    @classmethod
    def of(
        cls,
        budget: Terms | None = None,
        max_flops: float | None = None,
        deadline_ms: float | None = None,
        min_top1: float | None = None,
        stitch: int | None = None,
    ) -> "Budget":
        """From what a caller gives; a text may hold several terms."""
        texts = () if budget is None else (budget,) if isinstance(budget, str) else tuple(budget)
        terms = tuple(term.strip() for text in texts for term in text.split(","))
        return cls(terms, max_flops, deadline_ms, min_top1, stitch)

    def query(self) -> list[tuple[str, str]]:
        """The parameters that send it."""
        plain = {name: getattr(self, name) for name in ("max_flops", "deadline_ms", "min_top1", "stitch")}
        numbers = [(name, str(value)) for name, value in plain.items() if value is not None]
        return [("budget", term) for term in self.terms] + numbers

    @property
    def deadline(self) -> float | None:
        """Seconds, where it has a deadline."""
        if self.deadline_ms is not None:
            return self.deadline_ms / 1e3
        for number, unit in map(_read, self.terms):
            if unit in _SECONDS:
                return number * _SECONDS[unit]
        return None

    def cheaper(self) -> "Budget":
        """Half the FLOPs, where those are limited, and any top-1; itself where there is nothing to give up.

        A pinned stitch stays pinned, and a deadline is what it was: what is answered too late is of no use.
        """
        terms = tuple(_halved(term) for term in self.terms if _read(term)[1] != "%")
        flops = None if self.max_flops is None else self.max_flops / 2
        return replace(self, terms=terms, max_flops=flops, min_top1=None)


def _read(term: str) -> tuple[float, str]:
    """Number and unit; (0, "") for what only the server can tell what is wrong with."""
    match = _TERM.fullmatch(term)
    try:
        return (float(match[1]), match[2].lower()) if match else (0.0, "")
    except ValueError:
        return 0.0, ""


def _halved(term: str) -> str:
    number, unit = _read(term)
    return f"{number / 2!r}{unit}" if _FLOPS.fullmatch(unit) else term
