"""Training in two processes, and on a GPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from picture_folders import picture_folder
from small_families import TINY, TINY_RESNET, registered

import stitching
from stitching.data import open_data, seeded
from stitching.drawing import draw
from stitching.model import SNNet
from stitching.objective import objective
from stitching.train import learning_rate, new_optimizer, starting_model, train
from stitching.train_config import TrainConfig

WORKER = Path(__file__).parent / "train_worker.py"


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[None]:
    with registered(TINY), registered(TINY_RESNET):
        yield


@pytest.fixture
def run(tmp_path: Path) -> TrainConfig:
    root = picture_folder(tmp_path / "pictures")
    return TrainConfig(
        family="tiny", data=str(root), out=tmp_path / "run", steps=3, batch=4, lr=1e-2, warmup=1, threads=1
    )


def averaged(config: TrainConfig, processes: int) -> SNNet:
    """The network after the same steps, taken in one process: each with the mean of the processes' gradients."""
    with seeded(config.seed):
        model = starting_model(config)
    optimizer = new_optimizer(config, model)
    data = open_data(config.data, TINY)
    streams = [data.training(0, config.steps, config.batch, config.seed + rank) for rank in range(processes)]
    for step, batches in enumerate(zip(*streams, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        for rank, (images, labels) in enumerate(batches):
            stitch = draw((model.stitches,), config.seed, rank, step)
            loss = objective(config, model(images, stitch), labels, images, None)
            (loss / processes).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return model


def in_two_processes(run: TrainConfig) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finished = subprocess.run(
        [*torchrun, str(WORKER), run.model_dump_json()],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == [str(run.out / "model.safetensors")] * 2


def test_two_processes_draw_for_themselves_and_share_their_gradients(run: TrainConfig) -> None:
    stitches = SNNet(TINY).stitches
    drawn = [[draw((stitches,), run.seed, rank, step).id for step in range(run.steps)] for rank in range(2)]
    assert drawn[0] != drawn[1]
    in_two_processes(run)
    assert sorted(file.name for file in run.out.iterdir()) == ["last.pt", "model.safetensors"]
    trained = stitching.load("tiny", run.out / "model.safetensors").state_dict()
    for key, value in averaged(run, processes=2).state_dict().items():
        # A hundredth of a step: keys' biases have no gradient but rounding, of which AdamW makes some.
        torch.testing.assert_close(trained[key], value, atol=1e-4, rtol=0)


def test_running_statistics_are_averaged_over_the_processes(run: TrainConfig) -> None:
    run = run.model_copy(update={"family": "tiny_resnet", "steps": 1, "stitches": "0"})
    in_two_processes(run)
    trained = stitching.load("tiny_resnet", run.out / "model.safetensors").state_dict()
    seen = []
    for rank in range(2):
        with seeded(run.seed):
            model = SNNet(TINY_RESNET).train()
        images, _ = next(open_data(run.data, TINY_RESNET).training(0, 1, run.batch, run.seed + rank))
        model(images, model.stitches[0])
        seen.append(model.state_dict())
    for key in ("anchors.0.bn1.running_mean", "anchors.0.layer4.0.bn2.running_var"):
        assert not torch.allclose(seen[0][key], seen[1][key], atol=1e-4)
        torch.testing.assert_close(trained[key], (seen[0][key] + seen[1][key]) / 2, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_in_half_precision_and_keeps_the_scale_of_its_loss(run: TrainConfig) -> None:
    before = starting_model(run).state_dict()
    after = stitching.load("tiny", train(run)).state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in after.items())
    assert torch.load(run.out / "last.pt", weights_only=True)["scaler"]["scale"] > 0
