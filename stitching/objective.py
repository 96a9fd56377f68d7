"""What a training step minimises: cross-entropy, mixed with what a teacher says."""

import timm
import torch
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional as F

from stitching import checkpoint
from stitching.families import family as named_family
from stitching.train_config import TrainConfig

Logits = Tensor | tuple[Tensor, Tensor]
"""Of one head, or of two of which the second learns from the teacher (LeViT)."""


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


def mixer(config: TrainConfig) -> Mixup | None:
    """timm's mixup and cutmix as the config has them: (images, labels) -> (images, smoothed probabilities), or None."""
    if not config.mixup and not config.cutmix:
        return None
    if config.batch % 2:
        raise ValueError(f"batch: mixup and cutmix need an even number of images, got {config.batch}")
    classes = named_family(config.family).classes
    return Mixup(config.mixup, config.cutmix, label_smoothing=config.smoothing, num_classes=classes)


def objective(config: TrainConfig, logits: Logits, labels: Tensor, images: Tensor, teacher: nn.Module | None) -> Tensor:
    """Cross-entropy, mixed by alpha with hard or soft distillation (Hinton et al. 2015; Touvron et al. 2021).

    `labels`: class numbers (N,), or probabilities (N, classes) as mixup gives them, which are smoothed already.
    """
    answered, learned = logits if isinstance(logits, tuple) else (logits, logits)
    smoothing = 0.0 if labels.is_floating_point() else config.smoothing
    if teacher is None:
        both = (answered + learned) / 2 if isinstance(logits, tuple) else answered
        return F.cross_entropy(both, labels, label_smoothing=smoothing)
    loss = F.cross_entropy(answered, labels, label_smoothing=smoothing)
    with torch.no_grad():
        told = teacher(images)
    if config.distillation == "hard":
        distilled = F.cross_entropy(learned, told.argmax(dim=1))
    else:
        t = config.temperature
        distilled = (
            t
            * t
            * F.kl_div((learned / t).log_softmax(1), (told / t).log_softmax(1), log_target=True, reduction="batchmean")
        )
    return (1 - config.alpha) * loss + config.alpha * distilled
