"""Training in two processes, and on a GPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from picture_folders import picture_folder
from small_families import TINY, registered

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
    with registered(TINY):
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


def test_two_processes_draw_for_themselves_and_share_their_gradients(run: TrainConfig) -> None:
    stitches = SNNet(TINY).stitches
    drawn = [[draw((stitches,), run.seed, rank, step).id for step in range(run.steps)] for rank in range(2)]
    assert drawn[0] != drawn[1]
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
    assert sorted(file.name for file in run.out.iterdir()) == ["last.pt", "model.safetensors"]
    trained = stitching.load("tiny", run.out / "model.safetensors").state_dict()
    for key, value in averaged(run, processes=2).state_dict().items():
        torch.testing.assert_close(trained[key], value, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_in_half_precision_and_keeps_the_scale_of_its_loss(run: TrainConfig) -> None:
    before = starting_model(run).state_dict()
    after = stitching.load("tiny", train(run)).state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in after.items())
    assert torch.load(run.out / "last.pt", weights_only=True)["scaler"]["scale"] > 0
