"""An answer that is written at once says what the API's schema says."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from lookup_tables.table import LookupTable, folder
from server.answered import Answered, Teller
from server.batcher import Answer
from server.budget import Budget
from server.engine import Ranking
from server.schemas import Classification

TABLE = LookupTable.load(folder("digits"))
STRANGE = replace(TABLE, labels=('a "word"', "back\\slash", "zwölf\n", "", *TABLE.labels[4:]))


@pytest.mark.parametrize("table", [TABLE, STRANGE])
@pytest.mark.parametrize(
    ("budget", "total", "met"),
    [
        (Budget(), 0.012345, True),
        (Budget(), 0.5, False),
        (Budget(max_flops=2e7, deadline=0.25, min_top1=0.4), 0.1, False),
        (Budget(max_flops=1e20, min_top1=0.123456789), 1e-9, True),
    ],
)
def test_both_say_the_same(table: LookupTable, budget: Budget, total: float, met: bool) -> None:
    ranking = Ranking(np.array([1, 0, 2, 3]), np.array([0.9, 0.1, 1e-7, 0.0], np.float32))
    answer = Answer(ranking, TABLE.entries[2], 'best "stitch" within 1 ms', 0.001, 0.002)
    seconds = {"decode": 0.0012345, "queue": 0.0, "compute": 1e-7, "total": total}
    answered = Answered(answer, budget, 0.25, 3, "mine-1", seconds)
    teller = Teller(table)
    schema = teller.schema(answered)
    response = teller.response(answered)
    assert json.loads(bytes(response.body)) == json.loads(TypeAdapter(Classification).dump_json(schema))
    assert schema.budget.met == met
    assert [each.label for each in schema.predictions] == [table.labels[1], table.labels[0], table.labels[2]]
    assert response.headers["content-length"] == str(len(response.body))
    assert (response.headers["x-stitch-id"], response.headers["content-type"]) == ("2", "application/json")
    told = dict(stage.split(";dur=") for stage in response.headers["server-timing"].split(", "))
    assert {stage: float(ms) for stage, ms in told.items()} == asdict(schema.timing_ms)
