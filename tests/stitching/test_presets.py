"""The published recipes: what they say, and ten steps of each on tiny pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from picture_folders import picture_folder
from pydantic import ValidationError
from small_families import SMALL_SWIN, TINY, TINY_RESNET, registered, small_v2

import stitching
from stitching.families import AnchorSpec, Family, Preprocessing
from stitching.rules import Staged
from stitching.train import new_optimizer, starting_model, train
from stitching.train_config import PRESETS, TrainConfig

LEVIT: dict[str, Any] = {
    "embed_dim": (16, 24, 32),
    "key_dim": 8,
    "num_heads": (2, 2, 2),
    "depth": (2, 2, 2),
    "img_size": 64,
}
NETWORKS = {
    "deit": TINY,
    "swin": SMALL_SWIN,
    "levit": Family(
        "tiny_levit", tuple(AnchorSpec(name, "levit_128s", LEVIT) for name in "ab"), 3, rule=Staged((0, 1)),
        preprocessing=Preprocessing(size=64),
    ),
    "resnet": TINY_RESNET,
    "v2": small_v2(12),
}  # fmt: skip
"""A small network of the kind that each recipe is for."""


@pytest.fixture(autouse=True, scope="module")
def named() -> Iterator[None]:
    kept = [registered(family) for family in NETWORKS.values()]
    for family in kept:
        family.__enter__()
    yield
    for family in kept:
        family.__exit__(None, None, None)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A teacher's weights by number of classes."""
    paths = {}
    for classes in (3, 10):
        paths[classes] = tmp_path_factory.mktemp("teacher") / f"{classes}.pth"
        torch.save(timm.create_model("test_resnet", num_classes=classes).state_dict(), paths[classes])
    return paths


def ten_steps(preset: str, root: Path, teacher: dict[int, Path]) -> TrainConfig:
    family = NETWORKS[preset]
    given: dict[str, Any] = {"steps": 10, "warmup": 2, "batch": 4}
    if "teacher" in PRESETS[preset]:
        given |= {"teacher": "test_resnet", "teacher_checkpoint": teacher[family.classes]}
    if preset == "v2":  # the recipe's rates are for the anchors of the article
        given["drop_path"] = (0.05, 0.4)
    data = picture_folder(root / "pictures", classes=family.classes)
    return TrainConfig(preset=preset, family=family.name, data=str(data), out=root / "run", **given)


@pytest.mark.parametrize("preset", PRESETS)
def test_ten_steps_of_a_recipe_move_every_part_and_load_again(
    preset: str, tmp_path: Path, teacher: dict[int, Path]
) -> None:
    run = ten_steps(preset, tmp_path, teacher)
    torch.manual_seed(run.seed)
    trained = stitching.load(run.family, train(run))
    assert sum(parameter.numel() for parameter in trained.parameters()) > 0
    state = torch.load(run.out / "last.pt", weights_only=True)
    assert state["step"] == 10
    assert not any("lora" in key for key in trained.state_dict())


def test_every_family_that_was_published_has_a_recipe() -> None:
    assert set(PRESETS) == set(NETWORKS)


@pytest.mark.parametrize(
    ("family", "rates"), [("deit3_s_b", (0.05, 0.15)), ("deit3_s_l", (0.05, 0.4)), ("deit3_b_l", (0.15, 0.4))]
)
def test_v2_has_a_rate_of_drop_path_for_each_anchor(family: str, rates: tuple[float, ...], tmp_path: Path) -> None:
    assert TrainConfig(family=family, data="x", out=tmp_path, preset="v2").drop_path == rates
    assert TrainConfig(family=family, data="x", out=tmp_path, preset="v2", drop_path=0.2).drop_path == (0.2,)


def test_anchors_that_v2_has_no_rate_for_must_be_given_one(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"drop_path: .* no rate for anchor 'small'; give one for each anchor"):
        TrainConfig(family="small_v2_12_12", data="x", out=tmp_path, preset="v2")


def test_what_is_given_goes_before_the_recipe(tmp_path: Path) -> None:
    run = TrainConfig(family="tiny", data="x", out=tmp_path, preset="swin", lr=0.5)
    assert (run.lr, run.anchor_lr, run.clip, run.drop_path) == (0.5, 0.1, 5.0, (0.2,))


def test_an_unknown_recipe_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"no 'bert'; there are deit, swin"):
        TrainConfig(family="tiny", data="x", out=tmp_path, preset="bert")


def test_only_the_corrections_and_biases_of_v2_layers_are_trained(tmp_path: Path) -> None:
    run = TrainConfig(family="small_v2_12_12", data="x", out=tmp_path, preset="v2", drop_path=(0.1, 0.4))
    model = starting_model(run)
    trained = {id(p) for group in new_optimizer(run, model).param_groups for p in group["params"]}
    layer = dict(model.layer((0, 0)).named_parameters())
    assert {name for name, p in layer.items() if id(p) in trained} == {
        "transform.bias", "transform.lora_A", "transform.lora_B",
    }  # fmt: skip
    rates = [[block.drop_path1.drop_prob for block in seam.net.blocks] for seam in model.seams]
    assert rates == [[0.1] * 12, [0.4] * 12]


def test_rates_of_drop_path_that_do_not_fit_the_anchors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 rates for the 2 anchors"):
        starting_model(TrainConfig(family="tiny", data="x", out=tmp_path, drop_path=(0.1, 0.2, 0.3)))
