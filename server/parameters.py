"""What a query may hold: each parameter once, and none that there is not; only `budget` may be repeated."""

from collections.abc import Awaitable, Callable
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.datastructures import QueryParams

from server import budget as budgets
from server.budget import LONGEST_DEADLINE, PATTERN, WANTED, Budget
from server.engine import MOST_CLASSES

REPEATABLE = "budget"
KEPT = 1024  # queries that need not be read again

# Taken as text: one grammar says what is a number, and one error what is none. The document tells what they are.
_TERMS = {"type": "array", "items": {"type": "string", "pattern": PATTERN}, "examples": [["2GFLOPs", "15ms"], ["78%"]]}
_FLOPS = {"type": "number", "exclusiveMinimum": 0, "examples": [2e9]}
_MS = {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_DEADLINE * 1e3, "examples": [15]}
_PERCENT = {"type": "number", "minimum": 0, "maximum": 100, "examples": [78]}
_ID = {"type": "integer", "minimum": 0, "examples": [24]}


class Query(BaseModel):
    """What a request for answers may ask for in its query.

    Read here in one piece and kept: parameter by parameter, as FastAPI has it, that is the longest part of a request's
    way through the event loop.
    """

    model_config = ConfigDict(frozen=True)

    budget: Annotated[list[str], WithJsonSchema(_TERMS)] = Field([], description=WANTED["budget"])
    max_flops: Annotated[str | None, WithJsonSchema(_FLOPS)] = Field(None, description=WANTED["max_flops"])
    deadline_ms: Annotated[str | None, WithJsonSchema(_MS)] = Field(None, description=WANTED["deadline_ms"])
    min_top1: Annotated[str | None, WithJsonSchema(_PERCENT)] = Field(None, description=WANTED["min_top1"])
    stitch: Annotated[str | None, WithJsonSchema(_ID)] = Field(None, description=WANTED["stitch"])
    top_k: int = Field(5, ge=1, le=MOST_CLASSES, description="how many classes")
    on_infeasible: Literal["reject", "nearest"] = Field(
        "reject", description="when no stitch can meet the budget: refuse, or take the nearest"
    )

    @staticmethod
    @lru_cache(KEPT)
    def of(query_string: bytes) -> "Query":
        """A request's. Raises RequestValidationError, naming the parameter."""
        sent = QueryParams(query_string)
        _check(sent, PARAMETERS)
        values = {name: sent.getlist(name) if name == REPEATABLE else sent[name] for name in sent}
        try:
            return Query.model_validate(values)
        except ValidationError as error:
            faults = [fault | {"loc": ("query", *fault["loc"])} for fault in error.errors()]
            raise RequestValidationError(faults) from None

    @property
    def nearest(self) -> bool:
        """Whether the nearest stitch will do."""
        return self.on_infeasible == "nearest"

    @cached_property
    def asks(self) -> Budget:
        """The budget; raises BadBudget."""
        return budgets.parse(
            self.budget,
            max_flops=self.max_flops,
            deadline_ms=self.deadline_ms,
            min_top1=self.min_top1,
            stitch=self.stitch,
        )


PARAMETERS = tuple(Query.model_fields)


def documented(**more: Any) -> dict[str, Any]:
    """What the OpenAPI document says of the query, and `more` of the operation."""
    schemas = Query.model_json_schema()["properties"]
    return {"parameters": [_described(name, dict(schema)) for name, schema in schemas.items()], **more}


def _described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": schema.pop("description"), "schema": schema}


def only(*names: str) -> Callable[[Request], Awaitable[None]]:
    """What checks that a query holds these parameters alone, each once; it raises RequestValidationError."""

    async def check(request: Request) -> None:
        _check(request.query_params, names)

    return check


def _check(sent: QueryParams, names: tuple[str, ...]) -> None:
    for name in sent:
        if name not in names:
            there_are = f"there are {', '.join(names)}" if names else "this route takes none"
            raise _fault(name, f"there is no such parameter; {there_are}", "extra_forbidden")
        times = len(sent.getlist(name))
        if times > 1 and name != REPEATABLE:
            raise _fault(name, f"it is given {times} times; give it once", "repeated")


def _fault(name: str, reason: str, kind: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", name[:40]), "msg": reason, "type": kind}])
