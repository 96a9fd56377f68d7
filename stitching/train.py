"""Training a stitchable network: one flat loop that draws a stitch a step (Pan et al., CVPR 2023, algorithm 1).

Everything random in a step (its images, its stitch, drop-path) follows from (seed, rank, step), so a run that was
interrupted and resumed is the run that was not.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from stitching import checkpoint, least_squares
from stitching.data import open_data, seeded
from stitching.families import family as named_family
from stitching.model import SNNet
from stitching.stitch import Stitch


class TrainConfig(BaseModel):
    """What a training run is. Two runs with equal configs on equal machines give equal weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field(description="family to train")
    data: str = Field(description="folder with train/<class>/* and val/<class>/*, or the built-in task 'digits'")
    out: Path = Field(description="folder for the run: last.pt to resume from, model.safetensors at the end")
    start: Path | None = Field(None, description="checkpoint of the whole family to start from")
    anchors: tuple[Path, ...] = Field((), description="one checkpoint per anchor, joined by least squares")
    pretrained: bool = Field(False, description="start from timm's pretrained anchors, joined by least squares")
    init_images: int = Field(1000, ge=1, description="images that the least-squares stitching layers are solved from")
    stitches: str = Field("all", description="drawn from, a stitch a step: all, anchors, ids, 3-24; 2x20 is 20 times 2")
    steps: int = Field(10_000, ge=1)
    batch: int = Field(128, ge=1, description="images per step and process")
    lr: float = Field(1e-4, gt=0, description="peak learning rate")
    min_lr: float = Field(1e-6, ge=0)
    warmup: int = Field(500, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(0.05, ge=0)
    beta2: float = Field(0.999, gt=0, lt=1, description="AdamW's second decay rate")
    fused: bool = Field(False, description="AdamW as one kernel: faster, sums in another order")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    drop_path: float = Field(0.0, ge=0, lt=1)
    teacher: str | None = Field(None, description="timm model to distil from")
    teacher_checkpoint: Path | None = Field(
        None, description="the teacher's weights; without it timm's pretrained ones"
    )
    distillation: Literal["hard", "soft"] = "hard"
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the distillation loss")
    temperature: float = Field(1.0, gt=0, description="of soft distillation")
    curriculum: float = Field(0.0, ge=0, le=1, description="share of the steps from clean to full clutter (digits)")
    position_std: float | None = Field(None, gt=0, description="spread of fresh position embeddings, if not timm's")
    seed: int = Field(0, ge=0)
    save_every: int = Field(500, ge=1, description="steps between checkpoints")
    threads: int | None = Field(None, ge=1, description="CPU threads")


def train(config: TrainConfig) -> Path:
    """Run, or resume, the training that `config` describes; gives the path of the trained checkpoint.

    Under `torchrun` each process draws its own images and its own stitch, and gradients are averaged. Raises
    ValueError for a config, data or checkpoint that does not fit.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    with _process_group() as rank:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else "cpu"
        data = open_data(config.data, named_family(config.family), config.curriculum)
        with seeded(config.seed):
            model = starting_model(config).to(device).train()
        drawn = drawable(model, config.stitches)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay), lr=config.lr, betas=(0.9, config.beta2), fused=config.fused
        )
        scaler = torch.amp.GradScaler("cuda", enabled=torch.cuda.is_available())
        teacher = load_teacher(config, device)
        first = resume(config, model, optimizer, scaler)
        net: nn.Module = model
        if distributed.is_initialized():
            net = DistributedDataParallel(model, find_unused_parameters=True)
        batches = data.training(first, config.steps, config.batch, config.seed + rank)
        bar = tqdm(total=config.steps, initial=first, unit="step", disable=rank > 0, mininterval=5)
        for step, (images, labels) in enumerate(batches, start=first):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            stitch = draw(drawn, config.seed, rank, step)
            with seeded(config.seed, rank, step), torch.autocast("cuda", enabled=torch.cuda.is_available()):
                inputs, targets = images.to(device), labels.to(device)
                loss = objective(config, net(inputs, stitch), targets, inputs, teacher)
            if not math.isfinite(loss.item()):
                raise ValueError(f"loss is {loss.item()} at step {step}, stitch {stitch.id}: lower the learning rate")
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if config.clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", stitch=stitch.id, refresh=False)
            if rank == 0 and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
                save_state(config, step + 1, model, optimizer, scaler)
        bar.close()
        path = config.out / "model.safetensors"
        if rank == 0:
            checkpoint.save(model, path)
        return path


@contextmanager
def _process_group() -> Iterator[int]:
    """This process's rank; joins torchrun's process group where there is one, and leaves it at the end."""
    if "RANK" not in os.environ:
        yield 0
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def starting_model(config: TrainConfig) -> SNNet:
    """The network before its first step: from a checkpoint, from joined anchors, or fresh."""
    model = SNNet(named_family(config.family), config.drop_path)
    if (config.out / "last.pt").is_file():
        return model  # about to be resumed, weights and all
    if config.start:
        model.load_state_dict(checkpoint.load(config.family, config.start).state_dict())
    elif config.anchors or config.pretrained:
        checkpoint.load_anchors(model, config.anchors)
        batches = -(-config.init_images // config.batch)
        data = open_data(config.data, model.family)
        least_squares.initialise(model, (images for images, _ in data.training(0, batches, config.batch, config.seed)))
    elif config.position_std:
        for seam in model.seams:
            nn.init.normal_(seam.net.pos_embed, std=config.position_std)
    return model


def drawable(model: SNNet, stitches: str) -> tuple[Stitch, ...]:
    """The stitches that a list of "all", "anchors", ids and ranges of ids names: "0,2,5"; "all,3-24x2,2x20".

    A number after an x says how often. ValueError for anything else.
    """
    whole = tuple(stitch for stitch in model.stitches if stitch.is_whole)
    named = {"all": whole, "anchors": tuple(stitch for stitch in model.stitches if stitch.is_anchor)}
    drawn: list[Stitch] = []
    for part in stitches.split(","):
        match = re.fullmatch(r"(all|anchors|(\d+)(?:-(\d+))?)(?:x([1-9]\d*))?", part.strip(), re.ASCII)
        name, first, last, times = match.groups() if match else ("", None, None, None)
        chosen = model.stitches[int(first) : int(last or first) + 1] if first else named.get(name, ())
        if not chosen or int(last or first or 0) >= len(model.stitches):
            ids = f"ids 0 to {len(model.stitches) - 1}"
            raise ValueError(f"stitches: {part!r} is none of all, anchors, {ids}, as in 0,2,5 or all,3-24x2,2x20")
        drawn += chosen * int(times or "1")
    return tuple(drawn)


def draw(stitches: tuple[Stitch, ...], seed: int, rank: int, step: int) -> Stitch:
    """The stitch of one step: uniform, a function of the arguments alone."""
    generator = torch.Generator().manual_seed((seed * 1_000 + rank) * 10_000_019 + step)
    return stitches[int(torch.randint(len(stitches), (), generator=generator))]


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine from lr to min_lr that ends with the last step."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Vectors and biases are not decayed (as timm and the reference do)."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def load_teacher(config: TrainConfig, device: str | torch.device) -> nn.Module | None:
    """The frozen timm teacher, or None."""
    if config.teacher is None:
        return None
    classes = named_family(config.family).classes
    local = config.teacher_checkpoint
    teacher = timm.create_model(config.teacher, pretrained=local is None, num_classes=classes)
    if local:
        state = checkpoint.read_tensors(local)
        checkpoint.check_state(local, f"teacher {config.teacher!r}", teacher.state_dict(), state)
        teacher.load_state_dict(state)
    return teacher.to(device).eval().requires_grad_(False)  # type: ignore[no-any-return]


def objective(config: TrainConfig, logits: Tensor, labels: Tensor, images: Tensor, teacher: nn.Module | None) -> Tensor:
    """Cross-entropy, mixed by alpha with hard or soft distillation (Hinton et al. 2015; Touvron et al. 2021)."""
    loss = F.cross_entropy(logits, labels, label_smoothing=config.smoothing)
    if teacher is None:
        return loss
    with torch.no_grad():
        told = teacher(images)
    if config.distillation == "hard":
        distilled = F.cross_entropy(logits, told.argmax(dim=1))
    else:
        t = config.temperature
        distilled = (
            t
            * t
            * F.kl_div((logits / t).log_softmax(1), (told / t).log_softmax(1), log_target=True, reduction="batchmean")
        )
    return (1 - config.alpha) * loss + config.alpha * distilled


def save_state(
    config: TrainConfig, step: int, model: SNNet, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> None:
    """Write last.pt, whole or not at all."""
    config.out.mkdir(parents=True, exist_ok=True)
    state = {
        "config": config.model_dump(mode="json"),
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    partial = config.out / "last.pt.partial"
    torch.save(state, partial)
    partial.replace(config.out / "last.pt")


def resume(config: TrainConfig, model: SNNet, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> int:
    """The first step to run: after last.pt if the folder holds one of this config, else 0."""
    path = config.out / "last.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    ignored = {"out", "threads", "save_every"}
    now, then = config.model_dump(mode="json"), state["config"]
    if changed := [key for key in now if key not in ignored and now[key] != then.get(key)]:
        raise ValueError(
            f"{path} is of a run with another {changed[0]}: {then.get(changed[0])!r}; choose another --out"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return int(state["step"])
