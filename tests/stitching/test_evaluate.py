"""Top-1 of every stitch, and a journal that is picked up where it was left."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import recipe
import torch
from small_families import TINY, with_recipe_weights
from torch import Tensor

from stitching.evaluate import evaluate
from stitching.model import SNNet

WEIGHTS = "0" * 64
IMAGES = recipe.images((10, 3, 32, 32))


class Held:
    """Ten images, and a count of how often they were asked for."""

    labels = ("a", "b", "c")

    def __init__(self, answers: Tensor) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def training(self, first: int, steps: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("nothing is trained here")

    def held_out(self, split: str, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.calls.append(split)
        return ((IMAGES[i : i + batch], self.answers[i : i + batch]) for i in range(0, 10, batch))


@pytest.fixture(scope="module")
def model() -> SNNet:
    return with_recipe_weights(TINY)


@pytest.fixture
def data(model: SNNet) -> Held:
    """The answers of stitch 2, the last three of them wrong."""
    with torch.no_grad():
        answers = model(IMAGES, model.stitches[2]).argmax(dim=1)
    answers[7:] = (answers[7:] + 1) % 3
    return Held(answers)


def run(model: SNNet, data: Held, journal: Path, ids: range = range(6), batch: int = 4) -> tuple[dict[int, float], int]:
    stitches = [model.stitches[i] for i in ids]
    return evaluate(model, data, stitches, split="val", journal=journal, weights=WEIGHTS, batch=batch)


def test_top1_is_the_share_of_images_whose_class_got_the_largest_logit(
    model: SNNet, data: Held, tmp_path: Path
) -> None:
    top1, images = run(model, data, tmp_path / "journal")
    assert top1[2] == 0.7
    with torch.inference_mode():
        expected = {s.id: (model(IMAGES, s).argmax(1) == data.answers).float().mean().item() for s in model.stitches}
    assert top1 == pytest.approx(expected)
    assert images == 10
    assert set(data.calls) == {"val"}


def test_the_journal_has_a_line_per_stitch_as_it_comes(model: SNNet, data: Held, tmp_path: Path) -> None:
    run(model, data, tmp_path / "new" / "journal", range(2, 4))
    heading, *rows = [json.loads(line) for line in (tmp_path / "new" / "journal").read_text().splitlines()]
    assert heading == {"family": "tiny", "weights": WEIGHTS, "split": "val"}
    assert [row["stitch"] for row in rows] == [2, 3]
    assert rows[0] == {"stitch": 2, "top1": 0.7, "images": 10}


def test_only_what_is_missing_is_measured(model: SNNet, data: Held, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    run(model, data, journal, range(4))
    assert len(data.calls) == 4
    resumed = run(model, data, journal)
    assert len(data.calls) == 6
    assert resumed == run(model, data, tmp_path / "another")


def test_a_complete_journal_needs_no_data(model: SNNet, data: Held, tmp_path: Path) -> None:
    first = run(model, data, tmp_path / "journal")
    data.calls.clear()
    assert run(model, data, tmp_path / "journal") == first
    assert data.calls == []


def test_only_the_stitches_asked_for_are_answered(model: SNNet, data: Held, tmp_path: Path) -> None:
    run(model, data, tmp_path / "journal")
    assert list(run(model, data, tmp_path / "journal", range(1, 3))[0]) == [1, 2]


def test_a_last_line_that_was_cut_off_is_measured_again(model: SNNet, data: Held, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    whole = run(model, data, journal)
    complete = journal.read_text()
    journal.write_text(complete[:-15])
    data.calls.clear()
    assert run(model, data, journal) == whole
    assert len(data.calls) == 1
    assert journal.read_text() == complete


@pytest.mark.parametrize("left", [0, 20])
def test_a_journal_that_was_cut_off_in_its_heading_is_begun_anew(
    model: SNNet, data: Held, tmp_path: Path, left: int
) -> None:
    whole = run(model, data, tmp_path / "journal")
    complete = (tmp_path / "journal").read_text()
    (tmp_path / "journal").write_text(complete[:left])
    assert run(model, data, tmp_path / "journal") == whole
    assert (tmp_path / "journal").read_text() == complete


def test_a_journal_of_something_else_is_refused_and_kept(model: SNNet, data: Held, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    run(model, data, journal, range(1))
    before = journal.read_text()
    stitches = model.stitches[:1]
    with pytest.raises(ValueError, match=r"journal holds results of .*remove it or choose another"):
        evaluate(model, data, stitches, split="val", journal=journal, weights="1" * 64)
    with pytest.raises(ValueError, match="'split': 'val'"):
        evaluate(model, data, stitches, split="test", journal=journal, weights=WEIGHTS)
    other = with_recipe_weights(replace(TINY, name="tinier"))
    with pytest.raises(ValueError, match="'family': 'tiny'"):
        evaluate(other, data, stitches, split="val", journal=journal, weights=WEIGHTS)
    assert journal.read_text() == before
