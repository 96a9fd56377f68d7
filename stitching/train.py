"""Training a stitchable network: one flat loop that draws a stitch a step (Pan et al., CVPR 2023, algorithm 1).

Everything random in a step (its images, its stitch, drop-path) follows from (seed, rank, step), so a run that was
interrupted and resumed is the run that was not.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.layers import DropPath, convert_splitbn_model
from timm.optim import create_optimizer_v2
from timm.utils import dispatch_clip_grad, distribute_bn
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from stitching import checkpoint, least_squares
from stitching.data import Augmentation, open_data, seeded
from stitching.drawing import draw, drawable, groups
from stitching.families import family as named_family
from stitching.fitting import check_joins
from stitching.model import SNNet
from stitching.objective import load_teacher, mixer, objective
from stitching.train_config import TrainConfig


def train(config: TrainConfig) -> Path:
    """Run, or resume, the training that `config` describes; gives the path of the trained checkpoint.

    Under `torchrun` each process draws its own images and its own stitch, and gradients are averaged. Raises
    ValueError for a config, data or checkpoint that does not fit.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    with _process_group() as rank:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else "cpu"
        augmentation = Augmentation(
            config.augment, config.color_jitter, config.erase, config.crop_mode, config.repeat, config.split_bn
        )
        data = open_data(config.data, named_family(config.family), config.curriculum, augmentation)
        with seeded(config.seed):
            model = starting_model(config).to(device).train()
        drawn = groups(model, drawable(model, config.stitches), config.flops_group)
        optimizer = new_optimizer(config, model)
        scaler = torch.amp.GradScaler("cuda", enabled=torch.cuda.is_available())
        teacher, mix = load_teacher(config, device), mixer(config)
        if teacher:
            _teach_a_head_of_its_own(model)
        first = resume(config, model, optimizer, scaler)
        net: nn.Module = model
        if distributed.is_initialized():
            net = DistributedDataParallel(model, find_unused_parameters=True)
        batches = data.training(first, config.steps, config.batch, config.seed + rank)
        bar = tqdm(total=config.steps, initial=first, unit="step", disable=rank > 0, mininterval=5)
        for step, (images, labels) in enumerate(batches, start=first):
            for group in optimizer.param_groups:
                group["lr"] = group["share"] * learning_rate(config, step)
            stitch = draw(drawn, config.seed, rank, step)
            with seeded(config.seed, rank, step), torch.autocast("cuda", enabled=torch.cuda.is_available()):
                inputs, targets = images.to(device), labels.to(device)
                if mix:
                    inputs, targets = mix(inputs, targets)
                loss = objective(config, net(inputs, stitch), targets, inputs, teacher)
            if not math.isfinite(loss.item()):
                raise ValueError(f"loss is {loss.item()} at step {step}, stitch {stitch.id}: lower the learning rate")
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if config.clip:
                scaler.unscale_(optimizer)
                dispatch_clip_grad(model.parameters(), config.clip, config.clip_mode)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", stitch=stitch.id, refresh=False)
            if step + 1 == config.steps and distributed.is_initialized():
                distribute_bn(model, distributed.get_world_size(), reduce=True)
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
    model = _fresh(config)
    check_joins(model)
    if not (config.out / "last.pt").is_file():  # which is about to give the weights
        _fill(config, model)
    if config.split_bn > 1:
        _split_norms(model, config.split_bn)
    return model


def _fill(config: TrainConfig, model: SNNet) -> None:
    if config.start:
        known = checkpoint.load(config.family, config.start).state_dict()
        model.load_state_dict({**model.state_dict(), **known})  # corrections of stitching layers start at nothing
    elif config.anchors or config.pretrained:
        checkpoint.load_anchors(model, config.anchors)
        batches = -(-config.init_images // config.batch)
        data = open_data(config.data, model.family)
        least_squares.initialise(model, (images for images, _ in data.training(0, batches, config.batch, config.seed)))
    elif config.position_std:
        for seam in model.seams:
            if not hasattr(seam.net, "pos_embed"):
                raise ValueError(f"position_std: family {config.family!r} has anchors without position embeddings")
            nn.init.normal_(seam.net.pos_embed, std=config.position_std)


def _split_norms(model: SNNet, parts: int) -> None:
    """Give each part of a batch batch norms of its own, all as they are now; only the first part's are saved."""
    for name, seam in zip(model.family.anchor_names, model.seams, strict=True):
        if any(isinstance(module, nn.BatchNorm1d) for module in seam.net.modules()):
            raise ValueError(f"split_bn: anchor {name!r} has batch norms over tokens, which cannot be split")
        convert_splitbn_model(seam.net, parts)


def _fresh(config: TrainConfig) -> SNNet:
    family = named_family(config.family)
    rates = config.drop_path if len(config.drop_path) > 1 else config.drop_path * len(family.anchors)
    if len(rates) != len(family.anchors):
        raise ValueError(f"drop_path: {len(rates)} rates for the {len(family.anchors)} anchors of {family.name!r}")
    model = SNNet(family, rates, lora=True)
    if config.drop_path_rule == "constant":
        for seam, rate in zip(model.seams, rates, strict=True):
            for module in list(seam.net.modules()):
                for name in ("drop_path1", "drop_path2"):
                    if hasattr(module, name):
                        setattr(module, name, DropPath(rate))
    return model


def _teach_a_head_of_its_own(model: SNNet) -> None:
    """LeViT's anchors have a second head for what a teacher says."""
    for seam in model.seams:
        if hasattr(seam.net, "set_distilled_training"):
            seam.net.set_distilled_training(True)


def new_optimizer(config: TrainConfig, model: SNNet) -> torch.optim.Optimizer:
    """The config's optimiser over `parameter_groups`."""
    parameters = parameter_groups(model, config.weight_decay, config.anchor_lr)
    betas = (0.9, config.beta2)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, betas=betas, fused=config.fused)
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, nesterov=True)
    return create_optimizer_v2(parameters, "lamb", lr=config.lr, betas=betas)  # type: ignore[no-any-return]


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up from warmup_lr, then a cosine from lr to min_lr that ends with the last step."""
    if step < config.warmup:
        return config.warmup_lr + (config.lr - config.warmup_lr) * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: SNNet, weight_decay: float, anchor_lr: float = 1.0) -> list[dict[str, Any]]:
    """What is trained, in groups with a `share` of the rate: the anchors' is `anchor_lr`.

    Vectors and biases are not decayed (as timm and the reference do).
    """
    found: list[dict[str, Any]] = []
    for part, share in ((model.anchors, anchor_lr), (model.stitch_layers, 1.0)):
        trained = [p for p in part.parameters() if p.requires_grad and share]
        for matrices, decay in ((True, weight_decay), (False, 0.0)):
            chosen = [p for p in trained if (p.ndim > 1) == matrices]
            if chosen:
                found.append({"params": chosen, "weight_decay": decay, "share": share})
    return found


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
