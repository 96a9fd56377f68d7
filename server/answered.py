"""What is told of an answered image: as a schema, or written at once.

The latter spares a server 6 to 11 % of the processor's time for a request (benchmarks/served), and is fastest where
numbers keep the zeros at their ends: Python takes longer to find out which could go.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic_core import to_json
from starlette.responses import Response

from lookup_tables.table import LookupTable
from server.batcher import Answer
from server.budget import Budget
from server.engine import Ranking
from server.refused import Header
from server.schemas import BudgetUsed, Classification, Prediction, StitchUsed, Timing, percent


class Answered(NamedTuple):
    """One image's answer, what was asked for, and the seconds that went into decode, queue, compute and total."""

    answer: Answer[Ranking]
    budget: Budget
    limit: float
    top_k: int
    request_id: str
    seconds: Mapping[str, float]

    @property
    def met(self) -> bool:
        """Whether it kept to the budget."""
        entry = self.answer.entry
        return self.seconds["total"] <= self.limit and self.budget.met_by(entry.flops, entry.top1)

    @property
    def timing_ms(self) -> dict[str, str]:
        """The seconds as they are told."""
        return {stage: f"{value * 1e3:.3f}" for stage, value in self.seconds.items()}


class Written(Response):
    """A response all of whose headers are given."""

    def __init__(self, body: bytes, headers: list[Header]) -> None:
        self.status_code, self.background = 200, None
        self.body, self.raw_headers = body, headers


class Teller:
    """Tells answers of one family."""

    def __init__(self, table: LookupTable) -> None:
        self._labels, self._model = table.labels, table.family.name
        self._classes = [
            f'{{"label":{json.dumps(label)},"index":{index},"probability":' for index, label in enumerate(table.labels)
        ]
        self._stitches = {each.stitch: to_json(StitchUsed.of(each)).decode() for each in table.entries}
        self._end = f'}},"model":{json.dumps(self._model)},"request_id":"'

    def schema(self, of: Answered) -> Classification:
        """The answer as the API describes it."""
        indices, probabilities = (values[: of.top_k].tolist() for values in of.answer.result)
        ranked = zip(indices, probabilities, strict=True)
        return Classification(
            predictions=[Prediction(self._labels[i], i, round(p, 6)) for i, p in ranked],
            stitch=StitchUsed.of(of.answer.entry),
            reason=of.answer.reason,
            budget=BudgetUsed(of.budget.max_flops, of.limit * 1e3, percent(of.budget.min_top1), of.met),
            timing_ms=Timing(**{stage: float(value) for stage, value in of.timing_ms.items()}),
            model=self._model,
            request_id=of.request_id,
        )

    def response(self, of: Answered) -> Response:
        """The same, as the answer to one request; the id of that is a plain word."""
        answer, budget, classes = of.answer, of.budget, self._classes
        indices, probabilities = (values[: of.top_k].tolist() for values in answer.result)
        ranked = zip(indices, probabilities, strict=True)
        predictions = ",".join([f"{classes[i]}{p:.6f}}}" for i, p in ranked])
        decode, queue, compute, total = of.timing_ms.values()
        body = (
            f'{{"predictions":[{predictions}],"stitch":{self._stitches[answer.entry.stitch]},"reason":{json.dumps(answer.reason)},'
            f'"budget":{{"max_flops":{_number(budget.max_flops)},"deadline_ms":{of.limit * 1e3},'
            f'"min_top1":{_number(percent(budget.min_top1))},"met":{"true" if of.met else "false"}}},'
            f'"timing_ms":{{"decode":{decode},"queue":{queue},"compute":{compute},"total":{total}'
            f'{self._end}{of.request_id}"}}'
        ).encode()
        timing = f"decode;dur={decode}, queue;dur={queue}, compute;dur={compute}, total;dur={total}"
        return Written(
            body,
            [
                (b"x-stitch-id", b"%d" % answer.entry.stitch),
                (b"server-timing", timing.encode()),
                (b"content-length", b"%d" % len(body)),
                (b"content-type", b"application/json"),
            ],
        )


def _number(value: float | None) -> Any:
    return "null" if value is None else value
