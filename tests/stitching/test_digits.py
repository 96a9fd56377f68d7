"""The digits task: honest splits, right labels, the same images every time."""

from itertools import combinations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from stitching.digits import FULL, SHARES, SIZE, Digits, Scans, compose, scans

MEAN = STD = (0.5, 0.5, 0.5)


def held_out(split: str, batch: int = 40, images: int = 100) -> tuple[Tensor, Tensor]:
    batches = list(Digits(MEAN, STD, held_out=images).held_out(split, batch))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_no_scan_is_in_two_splits_and_every_scan_is_in_one() -> None:
    members = {split: {int(row) for rows in scans(split).rows for row in rows} for split in SHARES}
    assert not any(members[one] & members[other] for one, other in combinations(members, 2))
    assert set.union(*members.values()) == set(range(1797))
    assert {split: round(len(rows) / 1797, 2) for split, rows in members.items()} == SHARES


def test_no_handwriting_is_in_two_splits() -> None:
    """Not only no row twice: no two equal pictures either side of a split."""
    pictures = {split: {tuple(scans(split).ink[rows].flatten(1).sum(1).tolist()) for rows in scans(split).rows}
                for split in SHARES}  # fmt: skip
    assert not any(pictures[one] & pictures[other] for one, other in combinations(pictures, 2))
    whole = scans("train").ink.flatten(1).tolist()
    assert len({tuple(picture) for picture in whole}) == len(whole)


@pytest.mark.parametrize("split", SHARES)
def test_scans_stand_under_their_own_digit(split: str) -> None:
    source, bunch = scans(split), load_digits()
    assert (float(source.ink.min()), float(source.ink.max())) == (0, 1)
    for digit, rows in enumerate(source.rows):
        assert len(rows)
        assert set(bunch.target[rows.numpy()]) == {digit}
        assert torch.equal(source.ink[rows] * 16, torch.from_numpy(bunch.images[rows.numpy()]).float())


@pytest.mark.parametrize("digit", range(10))
def test_tens_are_on_the_left(digit: int) -> None:
    """A hand that writes only this digit leaves ink on the left for its tens and on the right for its ones."""
    ink = torch.zeros(10, 8, 8)
    ink[digit] = 1
    images, labels = compose(Scans(ink, tuple(torch.arange(10).view(10, 1))), 200, 0.0, Generator().manual_seed(digit))
    left, right = images[..., : SIZE // 2 - 6].float(), images[..., SIZE // 2 + 6 :].float()
    written = torch.stack([half.flatten(2).std(dim=2).amax(dim=1) > 0 for half in (left, right)], dim=1)
    assert torch.equal(written, torch.stack([labels // 10 == digit, labels % 10 == digit], dim=1))
    assert written.any()
    assert not written.all()


def test_labels_are_two_digits_and_all_classes_come() -> None:
    _, classes = compose(scans("train"), 1000, 0.0, Generator().manual_seed(0))
    assert classes.bincount(minlength=100).min() > 0
    assert int(classes.max()) == 99
    assert Digits.labels[7] == "07"
    assert len(Digits.labels) == 100


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_images_are_the_same_on_every_call(split: str) -> None:
    (images, labels), (again, labels_again) = held_out(split), held_out(split)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert images.shape == (100, 3, SIZE, SIZE)
    assert labels.shape == (100,)


def test_held_out_splits_differ() -> None:
    assert not torch.equal(held_out("val")[0], held_out("test")[0])


def test_ten_thousand_images_are_held_out_and_the_last_batch_is_what_is_left() -> None:
    assert Digits(MEAN, STD).held_out_images == 10_000
    assert [len(y) for _, y in Digits(MEAN, STD, held_out=100).held_out("test", 40)] == [40, 40, 20]


def test_a_training_step_has_the_same_batch_wherever_the_run_began() -> None:
    whole = list(Digits(MEAN, STD).training(0, 4, 8, seed=1))
    later = list(Digits(MEAN, STD).training(2, 4, 8, seed=1))
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(whole[2:], later, strict=True))
    assert not torch.equal(whole[0][0], whole[1][0])
    assert not torch.equal(whole[0][0], next(Digits(MEAN, STD).training(0, 4, 8, seed=2))[0])


def colours_in_a_corner(images: Tensor) -> float:
    """Mean over images of the spread of their background, in grey values of 255."""
    return float(images[..., :6, :].float().flatten(2).std(dim=2).mean())


def test_difficulty_brings_the_clutter() -> None:
    plain, labels = compose(scans("test"), 50, 0.0, Generator().manual_seed(3))
    full, full_labels = compose(scans("test"), 50, FULL, Generator().manual_seed(3))
    assert torch.equal(labels, full_labels)
    assert colours_in_a_corner(plain) == 0
    assert colours_in_a_corner(full) > 3


def test_a_curriculum_begins_plain_and_ends_at_full_difficulty() -> None:
    lessons = [x for x, _ in Digits(MEAN, STD, curriculum=0.5).training(0, 4, 32, seed=1)]
    exam = [x for x, _ in Digits(MEAN, STD).training(0, 4, 32, seed=1)]
    clutter = [colours_in_a_corner(images) for images in lessons]
    assert clutter[0] == 0 < clutter[1] < clutter[2]
    assert [torch.equal(a, b) for a, b in zip(lessons, exam, strict=True)] == [False, False, True, True]


def test_images_are_normalised_with_the_mean_and_std_given() -> None:
    first, _ = next(Digits((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).training(0, 1, 4, seed=0))
    second, _ = next(Digits((0.1, 0.2, 0.3), (0.5, 0.25, 2.0)).training(0, 1, 4, seed=0))
    assert 0 <= float(first.min()) < float(first.max()) <= 1
    scaled = (first - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(second, scaled)
