"""Training and held-out images: an order that depends on nothing but the arguments."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_folders import COLOURS, held_out_pictures, picture_folder
from small_families import TINY, registered

from stitching.data import Augmentation, Batch, Folder, open_data, seeded
from stitching.digits import Digits
from stitching.families import FAMILIES


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def folder(root: Path, workers: int = 0) -> Folder:
    return Folder(root, TINY.preprocessing, workers=workers)


def same(one: Iterator[Batch], other: Iterator[Batch]) -> bool:
    pairs = list(zip(one, other, strict=True))
    assert pairs
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def test_a_step_has_the_same_batch_wherever_the_run_began(root: Path) -> None:
    whole = list(folder(root).training(0, 9, 5, seed=3))
    for first in (1, 4, 8):
        assert same(iter(whole[first:]), folder(root).training(first, 9, 5, seed=3))


def test_batches_do_not_depend_on_the_workers_or_the_global_streams(root: Path) -> None:
    alone = list(folder(root).training(2, 6, 5, seed=3))
    torch.manual_seed(77)
    random.seed(77)
    assert same(iter(alone), folder(root, workers=2).training(2, 6, 5, seed=3))


def test_batches_are_normalised_images_with_the_number_of_their_class(root: Path) -> None:
    images, labels = next(folder(root).training(0, 1, 12, seed=0))
    assert images.shape == (12, 3, 32, 32)
    strongest = images.mean(dim=(2, 3)).argmax(dim=1)  # the pictures are plain red, green or blue
    assert strongest.tolist() == [("red", "green", "blue").index(sorted(COLOURS)[label]) for label in labels.tolist()]


def test_an_epoch_shows_every_picture_once(root: Path) -> None:
    labels = torch.cat([labels for _, labels in folder(root).training(0, 6, 4, seed=5)])  # two epochs of 12
    assert labels[:12].bincount().tolist() == [4, 4, 4]
    assert labels[12:].bincount().tolist() == [4, 4, 4]
    assert labels[:12].tolist() != labels[12:].tolist()


def test_epochs_and_seeds_augment_anew(root: Path) -> None:
    def pixels(first: int, seed: int) -> torch.Tensor:
        images, _ = next(folder(root).training(first, first + 1, 12, seed))
        return images.flatten(1).sum(dim=1).sort().values

    assert not torch.equal(pixels(0, seed=0), pixels(1, seed=0))
    assert not torch.equal(pixels(0, seed=0), pixels(0, seed=1))


def test_the_first_part_of_a_batch_is_not_erased(root: Path) -> None:
    def batches(augmentation: Augmentation) -> list[torch.Tensor]:
        data = Folder(root, TINY.preprocessing, augmentation, workers=0)
        return [images for images, _ in data.training(0, 3, 4, seed=1)]

    whole = batches(Augmentation())
    erased = batches(Augmentation(erase=1.0))
    parted = batches(Augmentation(erase=1.0, parts=2))
    for plain, everywhere, images in zip(whole, erased, parted, strict=True):
        assert torch.equal(images[:2], plain[:2])
        assert torch.equal(images[2:], everywhere[2:])
        assert not any(torch.equal(a, b) for a, b in zip(plain, everywhere, strict=True))


def test_held_out_images_come_once_in_the_order_of_their_names(root: Path) -> None:
    batches = list(folder(root).held_out("val", 4))
    assert [len(labels) for _, labels in batches] == [4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 1, 1, 2, 2]
    again = folder(root, workers=2).held_out("val", 4)
    assert same(iter(batches), again)


def test_held_out_images_are_only_resized_and_normalised(root: Path) -> None:
    images, _ = next(folder(root).held_out("val", 6))
    p = TINY.preprocessing
    restored = images * torch.tensor(p.std).view(3, 1, 1) + torch.tensor(p.mean).view(3, 1, 1)
    expected = torch.tensor(held_out_pictures()).view(6, 3, 1, 1).expand(6, 3, 32, 32) / 255
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)


def test_a_tree_without_splits_is_one_split(root: Path) -> None:
    bare = folder(root / "train")
    assert bare.labels == sorted(COLOURS)
    assert sum(len(labels) for _, labels in bare.held_out("val", 5)) == 12


def test_a_split_with_other_classes_is_refused(tmp_path: Path) -> None:
    picture_folder(tmp_path)
    (tmp_path / "val" / "red").rename(tmp_path / "val" / "scarlet")
    with pytest.raises(ValueError, match=r"val: its class folders differ from those of .*train"):
        folder(tmp_path).held_out("val", 4)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no folder with one sub-folder of images per class"):
        folder(tmp_path / "nowhere")


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "train" / "red").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"train: no folder with .*red"):
        folder(tmp_path)


def test_a_missing_split_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"test: no folder with one sub-folder"):
        folder(root).held_out("test", 4)


def test_data_is_opened_by_its_name(root: Path) -> None:
    assert isinstance(open_data("digits", FAMILIES["digits"]), Digits)
    with registered(TINY) as tiny:
        assert list(open_data(str(root), tiny).labels) == sorted(COLOURS)


def test_data_with_another_number_of_classes_than_the_family_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="has 3 classes, family 'digits' 100"):
        open_data(str(root), FAMILIES["digits"])
    with pytest.raises(ValueError, match="'digits' has 100 classes, family 'tiny' 3"):
        open_data("digits", TINY)


def test_a_folder_has_no_curriculum(root: Path) -> None:
    with pytest.raises(ValueError, match="curriculum"):
        open_data(str(root), TINY, curriculum=0.4)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_seeded_decides_all_three_streams() -> None:
    with seeded(1, 2, 3):
        first = draws()
    with seeded(1, 2, 3):
        assert draws() == first
    with seeded(1, 2, 4):
        assert all(a != b for a, b in zip(draws(), first, strict=True))


def reseed() -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)


def test_seeded_puts_the_global_streams_back_even_after_an_error() -> None:
    @seeded(9)
    def fail() -> None:
        raise KeyError(draws())

    reseed()
    expected = draws()
    reseed()
    with pytest.raises(KeyError):
        fail()
    assert draws() == expected
