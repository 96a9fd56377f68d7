"""The package's own clients, and the server that they were made for."""

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Running
from PIL import Image
from pydantic import BaseModel, TypeAdapter

from server import schemas
from stitchserve import AsyncClient, Classification, Client, Refused, results
from stitchserve.budget import Budget

SAMPLE = min(SAMPLES.glob("*.jpg"))


def test_every_form_of_an_image_gets_the_same_answer(running: Running) -> None:
    picture = Image.open(io.BytesIO(SAMPLE.read_bytes())).convert("RGB")
    with Client(running.url) as client:
        forms: list[Any] = [SAMPLE, SAMPLE.read_bytes(), picture, np.asarray(picture)]
        answers = [client.classify(form, stitch=2, top_k=2) for form in forms]
    assert [answer.predictions for answer in answers] == [answers[0].predictions] * 4
    assert [answer.stitch.id for answer in answers] == [2] * 4


def test_budgets_are_kept_and_faults_named(running: Running) -> None:
    with Client(running.url) as client:
        assert client.classify(SAMPLE, "20MFLOPs", deadline_ms=40_000).budget.max_flops == 20e6
        assert client.classify(SAMPLE, "1kFLOPs", nearest=True).stitch.id == 0
        with pytest.raises(Refused) as raised:
            client.classify(SAMPLE, max_flops=1000)
        assert (raised.value.status, raised.value.problem["nearest_stitch"]) == (422, 0)
        with pytest.raises(Refused, match="2GFLOPs"):
            client.classify(SAMPLE, "cheap")
        # What a downgraded try sends is a budget too.
        assert client.classify(SAMPLE, Budget.of("20MFLOPs").cheaper().terms).budget.max_flops == 10e6


def test_the_other_calls(running: Running) -> None:
    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(running.url) as client:
            good, bad = await client.classify_batch([SAMPLE, b"no image"], budgets=["20MFLOPs", "1s"])
            listed = await client.stitches(frontier=True)
            return good, bad, await client.explain("20MFLOPs"), listed, await client.status()

    good, bad, explained, stitches, status = asyncio.run(ask())
    assert isinstance(good, Classification)
    assert isinstance(bad, Refused)
    assert good.stitch == explained.stitch
    assert {stitch.frontier for stitch in stitches.stitches} == {True}
    assert status.ready
    assert status.model_extra["memory_available"] > 0


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (results.Prediction, schemas.Prediction),
        (results.Stitch, schemas.StitchUsed),
        (results.ListedStitch, schemas.StitchListed),
        (results.BudgetUsed, schemas.BudgetUsed),
        (results.Timing, schemas.Timing),
        (results.Classification, schemas.Classification),
        (results.Explanation, schemas.Explanation),
        (results.Stitches, schemas.Stitches),
        (results.Status, schemas.Status),
    ],
)
def test_what_is_read_is_what_is_sent(ours: type[BaseModel], theirs: type) -> None:
    sent = TypeAdapter(theirs).json_schema(mode="serialization")["properties"]
    assert set(ours.model_fields) - set(sent) <= {"tries", "downgraded"}
