"""A training run: interrupted or not the same, from whichever start, with the stitches it was told."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_folders import picture_folder
from pydantic import ValidationError
from small_families import SMALL, TINY, registered, with_recipe_weights
from torch import nn

import stitching
from stitching.checkpoint import CheckpointError, load_anchors, save
from stitching.data import open_data
from stitching.least_squares import initialise
from stitching.model import SNNet
from stitching.train import learning_rate, new_optimizer, parameter_groups, starting_model, train
from stitching.train_config import TrainConfig


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[None]:
    with registered(TINY):
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "pictures")


def config(root: Path, out: str, **changes: Any) -> TrainConfig:
    fields = {"steps": 6, "batch": 4, "lr": 1e-2, "warmup": 2, "drop_path": 0.3} | changes
    return TrainConfig(family="tiny", data=str(root), out=root.parent / out, **fields)


def cross_entropy(model: SNNet, root: Path) -> float:
    """On the held-out pictures, mean over all stitches."""
    images, labels = next(open_data(str(root), TINY).held_out("val", 6))
    with torch.inference_mode():
        losses = [nn.functional.cross_entropy(model.eval()(images, stitch), labels) for stitch in model.stitches]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize(("save_every", "saved"), [(1, 3), (2, 2)])
def test_a_run_that_was_interrupted_and_resumed_is_the_run_that_was_not(
    root: Path, save_every: int, saved: int
) -> None:
    whole = train(config(root, "whole", batch=3))
    picture = root / "train" / "green" / "2.png"  # in the fourth batch
    content = picture.read_bytes()
    picture.write_bytes(b"unreadable")
    cut = config(root, "cut", batch=3, save_every=save_every)
    with pytest.raises(OSError, match="cannot identify image file"):
        train(cut)
    assert torch.load(cut.out / "last.pt", weights_only=True)["step"] == saved
    assert not (cut.out / "model.safetensors").exists()
    picture.write_bytes(content)
    assert train(cut).read_bytes() == whole.read_bytes()


def test_a_finished_run_takes_no_further_step(root: Path) -> None:
    first = train(config(root, "run")).read_bytes()
    for picture in root.rglob("*.png"):
        picture.write_bytes(b"unreadable")
    assert train(config(root, "run")).read_bytes() == first


def test_another_seed_is_another_run(root: Path) -> None:
    assert train(config(root, "run")).read_bytes() != train(config(root, "other", seed=1)).read_bytes()


def test_a_run_with_another_config_is_not_resumed(root: Path) -> None:
    train(config(root, "run"))
    with pytest.raises(ValueError, match=r"last\.pt is of a run with another lr: 0\.01; choose another --out"):
        train(config(root, "run", lr=2e-2))


def test_how_often_to_save_may_change_between_runs(root: Path) -> None:
    first = train(config(root, "run")).read_bytes()
    assert train(config(root, "run", save_every=3)).read_bytes() == first


def test_training_learns(root: Path) -> None:
    run = config(root, "run", steps=60, batch=6, warmup=5, drop_path=0.0)
    before = cross_entropy(starting_model(run), root)
    after = cross_entropy(stitching.load("tiny", train(run)), root)
    assert before > 0.9
    assert after < before / 2


def test_only_the_parameters_of_the_stitches_drawn_change(root: Path) -> None:
    run = config(root, "run", stitches="0", weight_decay=0.0)
    save(with_recipe_weights(TINY), root.parent / "start.safetensors")
    trained = stitching.load("tiny", train(run.model_copy(update={"start": root.parent / "start.safetensors"})))
    start = with_recipe_weights(TINY).state_dict()
    changed = {key for key, value in trained.state_dict().items() if not torch.equal(value, start[key])}
    assert changed == {key for key in start if key.startswith("anchors.0.")}


def test_a_loss_that_is_no_number_stops_the_run(root: Path) -> None:
    with pytest.raises(ValueError, match=r"loss is nan at step 1, stitch 1: lower the learning rate"):
        train(config(root, "run", lr=1e30, warmup=0, stitches="1"))


def test_gradients_are_clipped_to_the_norm_given(root: Path) -> None:
    """AdamW does not feel a scale, but its first moments are the last gradient's tenth after one step."""
    run = config(root, "run", steps=1, clip=1e-3)
    train(run)
    moments = torch.load(run.out / "last.pt", weights_only=True)["optimizer"]["state"].values()
    norm = math.sqrt(sum(float((moment["exp_avg"] * 10).square().sum()) for moment in moments))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_run_starts_from_a_checkpoint_of_the_family(root: Path) -> None:
    save(with_recipe_weights(TINY), root.parent / "start.safetensors")
    model = starting_model(config(root, "run", start=root.parent / "start.safetensors"))
    assert all(torch.equal(v, with_recipe_weights(TINY).state_dict()[k]) for k, v in model.state_dict().items())


def anchor_files(folder: Path) -> tuple[Path, Path]:
    model = with_recipe_weights(TINY)
    files = folder / "a.pth", folder / "b.pth"
    for anchor, file in zip(model.anchors, files, strict=True):
        torch.save(anchor.state_dict(), file)
    return files


def test_a_run_starts_from_anchors_joined_by_least_squares(root: Path) -> None:
    files = anchor_files(root.parent)
    run = config(root, "run", anchors=files, init_images=9, seed=4)
    expected = SNNet(TINY)
    load_anchors(expected, files)
    batches = list(open_data(str(root), TINY).training(0, 3, run.batch, run.seed))  # 9 images: 3 batches of 4
    initialise(expected, [images for images, _ in batches])
    model = starting_model(run)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in model.state_dict().items())


def test_anchors_of_another_family_stop_the_run(root: Path) -> None:
    files = anchor_files(root.parent)
    with pytest.raises(CheckpointError, match=r"b\.pth: not a checkpoint of anchor 'tiny_a'"):
        train(config(root, "run", anchors=files[::-1]))


def test_position_embeddings_start_as_wide_as_asked() -> None:
    with registered(SMALL):
        run = TrainConfig(family="small", data="unused", out=Path("unused"), position_std=0.3)
        for seam in starting_model(run).seams:
            assert seam.net.pos_embed.std().item() == pytest.approx(0.3, rel=0.2)


def test_the_learning_rate_rises_then_falls_on_a_cosine(root: Path) -> None:
    run = config(root, "run", steps=110, warmup=10, lr=1.0, min_lr=0.2)
    assert [learning_rate(run, step) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert learning_rate(run, 10) == 1.0
    assert learning_rate(run, 60) == pytest.approx(0.6)
    assert learning_rate(run, 35) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(run, 109) == pytest.approx(0.2, abs=1e-3)
    falling = [learning_rate(run, step) for step in range(10, 110)]
    assert falling == sorted(falling, reverse=True)


def test_without_warm_up_the_first_step_is_at_the_peak(root: Path) -> None:
    assert learning_rate(config(root, "run", warmup=0), 0) == 1e-2


def test_vectors_are_not_decayed() -> None:
    model = SNNet(TINY)
    groups = parameter_groups(model, 0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(decay) == set(names.values())
    free = {name for name in names.values() if name.endswith("bias") or ".norm" in name}
    assert decay == {name: 0.0 if name in free else 0.05 for name in names.values()}


@pytest.mark.parametrize(("share", "moved"), [(0.0, 0.0), (0.1, 0.1), (1.0, 1.0)])
def test_anchors_have_a_share_of_the_rate(root: Path, share: float, moved: float) -> None:
    run = config(root, "run", steps=1, warmup=0, anchor_lr=share, optimizer="sgd", weight_decay=0.0, stitches="3")
    model = starting_model(run)
    optimizer = new_optimizer(run, model)
    for group in optimizer.param_groups:
        group["lr"] = group["share"] * learning_rate(run, 0)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    steps = {
        name: float((before[name].detach() - parameter.detach()).max()) for name, parameter in model.named_parameters()
    }
    full = steps["stitch_layers.0.0.transform.weight"]
    assert steps["anchors.0.head.weight"] == pytest.approx(moved * full, rel=1e-4)
    assert full > 0


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch": 0}, {"lr": 0}, {"alpha": 2}, {"distillation": "warm"}, {"colour": "red"}]
)
def test_settings_out_of_range_are_refused(root: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        config(root, "run", **wrong)
