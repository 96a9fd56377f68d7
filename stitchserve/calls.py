"""Every call as data: what is sent, and how its answer is read. No I/O, so that both clients share it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import httpx

from stitchserve.budget import Budget, Terms
from stitchserve.errors import Refused, StitchserveError, refused
from stitchserve.results import Classification, Explanation, Status, Stitches

Answer = TypeVar("Answer")

NO_BUDGET = Budget()
BINARY = "application/octet-stream"  # the server looks at the bytes


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request; `read` makes its answer of the JSON and of what the client adds: `tries` and `downgraded`."""

    method: str
    path: str
    read: Callable[[Any, Mapping[str, Any]], Answer]
    budget: Budget = NO_BUDGET
    query: tuple[tuple[str, str], ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    downgraded: bool = False

    def cheaper(self) -> "Call[Answer]":
        """The same for less; itself where there is nothing to give up.

        What is sent then takes the nearest stitch: half of what one asked for may be less than the cheapest costs.
        """
        budget = self.budget.cheaper()
        if budget == self.budget:
            return self
        query = tuple(pair for pair in self.query if pair[0] != "on_infeasible")
        return replace(self, budget=budget, query=(*query, ("on_infeasible", "nearest")), downgraded=True)


def classify(image: bytes, budget: Budget, top_k: int | None, nearest: bool) -> Call[Classification]:
    """One image."""
    body = {"content": image, "headers": {"Content-Type": BINARY}}
    return Call("POST", "classify", _classification, budget, _options(top_k, nearest), body)


def classify_batch(
    images: Sequence[bytes], budget: Budget, budgets: Sequence[Terms] | None, top_k: int | None, nearest: bool
) -> Call[list[Classification | Refused]]:
    """Several images, with one budget for all or one for each. ValueError for none, and where these are not as many."""
    if not images:
        raise ValueError("images: none; give one at least")
    body: dict[str, Any] = {"files": [("image", (str(i), image, BINARY)) for i, image in enumerate(images)]}
    if budgets is not None:
        if len(budgets) != len(images):
            raise ValueError(f"budgets: {len(budgets)} for {len(images)} images; give one for each")
        body["data"] = {"budget": [each if isinstance(each, str) else ",".join(each) for each in budgets]}
    return Call("POST", "classify/batch", _classifications, budget, _options(top_k, nearest), body)


def explain(budget: Budget, nearest: bool) -> Call[Explanation]:
    """What would be chosen now."""
    return Call(
        "GET", "explain", lambda content, _: Explanation.model_validate(content), budget, _options(None, nearest)
    )


def stitches(frontier: bool) -> Call[Stitches]:
    """The lookup table."""
    query = (("frontier", "true"),) if frontier else ()
    return Call("GET", "stitches", lambda content, _: Stitches.model_validate(content), query=query)


def status() -> Call[Status]:
    """What the server is doing."""
    return Call("GET", "status", lambda content, _: Status.model_validate(content))


def answer(call: Call[Answer], response: httpx.Response, tries: int) -> Answer:
    """What the response to a call says. StitchserveError where that is no answer to it."""
    try:
        return call.read(response.json(), {"tries": tries, "downgraded": call.downgraded})
    except (TypeError, ValueError, KeyError) as error:  # pydantic's and json's are ValueErrors
        raise StitchserveError(f"{call.path}: this is no answer of a stitchserve server: {error}") from error


def _options(top_k: int | None, nearest: bool) -> tuple[tuple[str, str], ...]:
    asked = () if top_k is None else (("top_k", str(top_k)),)
    return (*asked, ("on_infeasible", "nearest")) if nearest else asked


def _classification(content: Any, added: Mapping[str, Any]) -> Classification:
    return Classification.model_validate({**content, **added})


def _classifications(content: Any, added: Mapping[str, Any]) -> list[Classification | Refused]:
    return [_classification(one, added) if "predictions" in one else refused(one) for one in content["results"]]
