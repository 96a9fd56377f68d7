"""Fuzz target: the grammar of budgets, any number of them and plain limits: `15ms&2GFLOPs,78%&stitch=3`."""

import re
from collections.abc import Iterable

from benchmarks.fuzz.target import Target
from server.budget import PATTERN, Budget, parse
from server.errors import BadBudget

PLAIN = ("max_flops", "deadline_ms", "min_top1", "stitch")
SEEDS = (
    *("2GFLOPs", "15ms,78%", ".5s&100%", "2e9FLOPs,1e-3 s", "900 mMACs , 7.50%", "1e-400s", "1e400FLOPs", "", "1us"),
    *("max_flops=2e+9&deadline_ms=15&min_top1=78.5&stitch=24", "min_top1=0", "deadline_ms=3600000", "stitch=000"),
    *(
        "1us&deadline_ms=1",
        "\u00b52s,\uff12ms",
        "0.000001MFLOPs",
        "2e 9FLOPS&stitch=3",
        "9" * 40 + "%",
        "max_flops=1e-9999",
    ),
)


def check(data: bytes) -> Budget:
    """Parses, and asserts what holds of every budget that does."""
    named = [part.partition("=") for part in data.decode("utf-8", "replace").split("&")]
    texts = ["".join(part) for part in named if part[0] not in PLAIN]
    plain = {name: value for name, _, value in named if name in PLAIN}
    budget = parse(texts, **plain)
    check_texts(texts)
    again = parse(budget.terms(), stitch=None if budget.stitch is None else str(budget.stitch))
    assert again == budget, (again, budget)
    return budget


def check_texts(texts: Iterable[str]) -> None:
    """What parses, the document's pattern takes as well."""
    for text in texts:
        assert re.search(PATTERN, text), text


TARGET = Target(check, (BadBudget,), tuple(seed.encode() for seed in SEEDS))
