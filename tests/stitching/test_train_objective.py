"""What a step minimises, with and without a teacher."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from picture_folders import picture_folder
from small_families import TINY, registered
from torch import Tensor, nn

import stitching
from stitching.checkpoint import CheckpointError
from stitching.data import open_data
from stitching.objective import load_teacher, objective
from stitching.train import train
from stitching.train_config import TrainConfig

TEACHER = "test_resnet"  # timm's smallest, with batch norms and their whole-number counters
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
LABELS = torch.tensor([0, 1])
IMAGES = torch.zeros(2, 3, 32, 32)
TOLD = torch.tensor([[0.0, 4.0, 1.0], [1.0, 0.0, 2.0]])


class Told(nn.Module):
    """A teacher that says the same whatever it is shown."""

    def forward(self, images: Tensor) -> Tensor:
        return TOLD


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[None]:
    with registered(TINY):
        yield


def config(**changes: Any) -> TrainConfig:
    fields = {"data": "unused", "out": Path("unused")} | changes
    return TrainConfig(family="tiny", **fields)


def surprise(logits: Tensor, classes: list[int]) -> float:
    """Mean of -log p(class)."""
    return -sum(float(row.softmax(0)[c].log()) for row, c in zip(logits, classes, strict=True)) / len(classes)


def divergence(temperature: float) -> float:
    """Mean over rows of KL(teacher || student), both softened."""
    teacher, student = (TOLD / temperature).softmax(1), (LOGITS / temperature).softmax(1)
    return float((teacher * (teacher / student).log()).sum() / 2)


def test_without_a_teacher_it_is_cross_entropy() -> None:
    assert objective(config(), LOGITS, LABELS, IMAGES, None).item() == pytest.approx(surprise(LOGITS, [0, 1]))


def test_smoothing_spreads_a_share_of_the_label() -> None:
    spread = sum(surprise(LOGITS, [c, c]) for c in range(3)) / 3
    expected = 0.9 * surprise(LOGITS, [0, 1]) + 0.1 * spread
    assert objective(config(smoothing=0.1), LOGITS, LABELS, IMAGES, None).item() == pytest.approx(expected)


def test_hard_distillation_takes_the_teachers_class_for_a_label() -> None:
    run = config(teacher=TEACHER, distillation="hard", alpha=0.3)
    expected = 0.7 * surprise(LOGITS, [0, 1]) + 0.3 * surprise(LOGITS, [1, 2])
    assert objective(run, LOGITS, LABELS, IMAGES, Told()).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_distillation_is_the_divergence_from_the_teacher(temperature: float) -> None:
    run = config(teacher=TEACHER, distillation="soft", alpha=0.3, temperature=temperature)
    expected = 0.7 * surprise(LOGITS, [0, 1]) + 0.3 * temperature**2 * divergence(temperature)
    assert objective(run, LOGITS, LABELS, IMAGES, Told()).item() == pytest.approx(expected, rel=1e-5)


def test_soft_distillation_of_an_equal_is_nothing() -> None:
    run = config(teacher=TEACHER, distillation="soft", alpha=1.0)
    assert objective(run, TOLD, LABELS, IMAGES, Told()).item() == pytest.approx(0, abs=1e-6)


def teacher_file(folder: Path) -> Path:
    """A teacher that sees blue (class 0) as 2 and everything else as 1, whatever is shown: here always 1."""
    teacher = timm.create_model(TEACHER, num_classes=3)
    nn.init.zeros_(teacher.fc.weight)
    with torch.no_grad():
        teacher.fc.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    torch.save({"model": teacher.state_dict()}, folder / "teacher.pth")
    return folder / "teacher.pth"


@pytest.mark.parametrize("distillation", ["hard", "soft"])
def test_with_all_weight_on_the_teacher_the_student_says_what_it_says(tmp_path: Path, distillation: str) -> None:
    root = picture_folder(tmp_path / "pictures")
    run = config(data=str(root), out=tmp_path / "run", steps=25, batch=4, lr=1e-2, warmup=0, alpha=1.0,
                 teacher=TEACHER, teacher_checkpoint=teacher_file(tmp_path), distillation=distillation)  # fmt: skip
    student = stitching.load("tiny", train(run))
    images, _ = next(open_data(str(root), TINY).held_out("val", 6))
    with torch.inference_mode():
        assert all(student(images, stitch).argmax(1).tolist() == [1] * 6 for stitch in student.stitches)


def test_the_teacher_is_frozen_and_in_eval_mode(tmp_path: Path) -> None:
    teacher = load_teacher(config(teacher=TEACHER, teacher_checkpoint=teacher_file(tmp_path)), "cpu")
    assert teacher is not None
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher(IMAGES).tolist() == [[0.0, 9.0, 0.0]] * 2


def test_a_teacher_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    torch.save(timm.create_model(TEACHER, num_classes=5).state_dict(), tmp_path / "five.pth")
    with pytest.raises(CheckpointError, match=r"five\.pth: not a checkpoint of teacher 'test_resnet'.*'fc\.weight'"):
        load_teacher(config(teacher=TEACHER, teacher_checkpoint=tmp_path / "five.pth"), "cpu")


def test_no_teacher_is_none() -> None:
    assert load_teacher(config(), "cpu") is None
    assert math.isfinite(objective(config(), LOGITS, LABELS, IMAGES, None).item())
