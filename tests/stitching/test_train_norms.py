"""Training with batch norms of their own for parts of a batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_folders import picture_folder
from pydantic import ValidationError
from safetensors.torch import load_file
from small_families import TINY_RESNET, registered, with_recipe_weights
from timm.layers import SplitBatchNorm2d

import stitching
from stitching.checkpoint import save
from stitching.train import starting_model, train
from stitching.train_config import TrainConfig

NORM = "anchors.0.bn1"


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[None]:
    with registered(TINY_RESNET):
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "pictures")


def config(root: Path, **changes: Any) -> TrainConfig:
    fields = {"steps": 3, "batch": 4, "warmup": 0, "erase": 1.0, "split_bn": 2, "stitches": "0"} | changes
    return TrainConfig(family="tiny_resnet", data=str(root), out=root.parent / "run", **fields)


def test_only_the_first_parts_norms_are_saved(root: Path) -> None:
    run = config(root)
    saved = load_file(train(run))
    state = torch.load(run.out / "last.pt", weights_only=True)["model"]
    assert torch.equal(saved[f"{NORM}.running_mean"], state[f"{NORM}.running_mean"])
    assert not torch.equal(saved[f"{NORM}.running_mean"], state[f"{NORM}.aux_bn.0.running_mean"])
    assert not any("aux_bn" in key for key in saved)
    loaded = stitching.load("tiny_resnet", run.out / "model.safetensors")
    assert not any(isinstance(module, SplitBatchNorm2d) for module in loaded.modules())


def test_a_finished_run_with_parts_takes_no_further_step(root: Path) -> None:
    first = train(config(root)).read_bytes()
    assert train(config(root)).read_bytes() == first


def test_every_parts_norms_begin_as_those_of_the_start(root: Path) -> None:
    save(with_recipe_weights(TINY_RESNET), root.parent / "start.safetensors")
    model = starting_model(config(root, start=root.parent / "start.safetensors", split_bn=4))
    given = with_recipe_weights(TINY_RESNET).state_dict()
    state = model.state_dict()
    for part in (NORM, f"{NORM}.aux_bn.0", f"{NORM}.aux_bn.2"):
        for name in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(state[f"{part}.{name}"], given[f"{NORM}.{name}"])


def test_a_batch_without_equal_parts_is_refused(root: Path) -> None:
    with pytest.raises(ValidationError, match="split_bn: a batch of 5 images has no 2 equal parts"):
        config(root, batch=5)


def test_norms_over_tokens_are_not_split(root: Path) -> None:
    run = config(root).model_copy(update={"family": "levit_192_256"})
    with pytest.raises(ValueError, match="split_bn: anchor 'levit_192' has batch norms over tokens"):
        starting_model(run)
