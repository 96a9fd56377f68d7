"""What a query may hold: each parameter once, and none that there is not; only `budget` may be repeated."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import WithJsonSchema

from server import budget as budgets
from server.budget import LONGEST_DEADLINE, PATTERN, WANTED, Budget
from server.engine import MOST_CLASSES

REPEATABLE = "budget"
PARAMETERS = (REPEATABLE, "max_flops", "deadline_ms", "min_top1", "stitch", "top_k", "on_infeasible")

# Taken as text: one grammar says what is a number, and one error what is none. The document tells what they are.
_TERMS = {"type": "array", "items": {"type": "string", "pattern": PATTERN}, "examples": [["2GFLOPs", "15ms"], ["78%"]]}
_FLOPS = {"type": "number", "exclusiveMinimum": 0, "examples": [2e9]}
_MS = {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_DEADLINE * 1e3, "examples": [15]}
_PERCENT = {"type": "number", "minimum": 0, "maximum": 100, "examples": [78]}
_ID = {"type": "integer", "minimum": 0, "examples": [24]}


def only(*names: str) -> Callable[[Request], Awaitable[None]]:
    """What checks that a query holds these parameters alone, each once; it raises RequestValidationError."""

    async def check(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                there_are = f"there are {', '.join(names)}" if names else "this route takes none"
                raise _fault(name, f"there is no such parameter; {there_are}", "extra_forbidden")
            times = len(request.query_params.getlist(name))
            if times > 1 and name != REPEATABLE:
                raise _fault(name, f"it is given {times} times; give it once", "repeated")

    return check


def _fault(name: str, reason: str, kind: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", name[:40]), "msg": reason, "type": kind}])


async def asked_budget(
    _: Annotated[None, Depends(only(*PARAMETERS))],
    budget: Annotated[list[str] | None, WithJsonSchema(_TERMS), Query(description=WANTED["budget"])] = None,
    max_flops: Annotated[str | None, WithJsonSchema(_FLOPS), Query(description=WANTED["max_flops"])] = None,
    deadline_ms: Annotated[str | None, WithJsonSchema(_MS), Query(description=WANTED["deadline_ms"])] = None,
    min_top1: Annotated[str | None, WithJsonSchema(_PERCENT), Query(description=WANTED["min_top1"])] = None,
    stitch: Annotated[str | None, WithJsonSchema(_ID), Query(description=WANTED["stitch"])] = None,
) -> Budget:
    """The budget in the query; raises BadBudget."""
    return budgets.parse(budget or (), max_flops=max_flops, deadline_ms=deadline_ms, min_top1=min_top1, stitch=stitch)


Asked = Annotated[Budget, Depends(asked_budget)]
TopK = Annotated[int, Query(ge=1, le=MOST_CLASSES, description="how many classes")]
OnInfeasible = Annotated[
    Literal["reject", "nearest"], Query(description="when no stitch can meet the budget: refuse, or take the nearest")
]
