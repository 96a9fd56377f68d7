"""First weights of the stitching layers, from both sides' features (Pan et al., CVPR 2023, section 3.2).

With X the features before a join, a column of ones appended, and Y those after it, the layer is pinv(X) Y. The
reference's pseudo-inverse is truncated: directions of X whose singular value is at most
max(rows, columns) * eps(float32) of the largest are dropped. Only the products X'X and X'Y are kept, in float64, so
any number of images can be used.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from stitching.model import SNNet
from stitching.stitch import LayerKey


@dataclass(frozen=True)
class Join:
    """One place of a stitching layer: after `front_blocks` of one anchor, before block `end_start` of another."""

    front: int
    front_blocks: int
    end: int
    end_start: int
    layer: LayerKey


class NormalEquations:
    """Sums of X'X and X'Y over batches of rows, and the truncated least-squares map they give."""

    def __init__(self, width_in: int, width_out: int) -> None:
        self.rows = 0
        self.gram = torch.zeros(width_in + 1, width_in + 1, dtype=torch.float64)
        self.cross = torch.zeros(width_in + 1, width_out, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x (..., width_in) and y (..., width_out)."""
        x = x.flatten(0, -2).double().cpu()
        y = y.flatten(0, -2).double().cpu()
        x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        self.rows += len(x)
        self.gram += x.T @ x
        self.cross += x.T @ y

    def solve(self) -> tuple[Tensor, Tensor]:
        """Weight (width_out, width_in) and bias (width_out,), float32. Raises ValueError before any row was added."""
        if not self.rows:
            raise ValueError("least squares needs at least one batch of images")
        squares, directions = torch.linalg.eigh(self.gram)  # squares of X's singular values, ascending
        singular = squares.clamp(min=0).sqrt()
        cut = max(self.rows, len(self.gram)) * torch.finfo(torch.float32).eps * singular[-1]
        inverse = torch.where(singular > cut, 1 / squares, 0)
        solution = (directions * inverse) @ (directions.T @ self.cross)  # (width_in + 1, width_out)
        return solution[:-1].T.float(), solution[-1].float()


def joins(model: SNNet) -> tuple[Join, ...]:
    """Every join that some stitch of the model makes, each once."""
    found = {
        Join(front.anchor, front.stop, end.anchor, end.start, layer)
        for stitch in model.stitches
        for front, end, layer in zip(stitch.segments, stitch.segments[1:], stitch.layers, strict=False)
    }
    return tuple(sorted(found, key=lambda j: (j.layer, j.front_blocks, j.end_start)))


@torch.no_grad()
def initialise(model: SNNet, batches: Iterable[Tensor]) -> None:
    """Set every stitching layer of `model` from batches of normalised images (N, 3, H, W).

    A layer used at several positions gets the mean of their solutions. The model is used in eval mode and put back.
    """
    places = joins(model)
    sums = {join: NormalEquations(model.seams[join.front].width, model.seams[join.end].width) for join in places}
    training = model.training
    model.eval()
    for images in batches:
        features = [anchor_features(model, anchor, images) for anchor in range(len(model.seams))]
        for join, equations in sums.items():
            equations.add(features[join.front][join.front_blocks], features[join.end][join.end_start])
    model.train(training)
    for key in {join.layer for join in places}:
        solutions = [sums[join].solve() for join in places if join.layer == key]
        transform = model.layer(key).transform
        transform.weight.copy_(torch.stack([weight for weight, _ in solutions]).mean(0))
        transform.bias.copy_(torch.stack([bias for _, bias in solutions]).mean(0))


def anchor_features(model: SNNet, anchor: int, images: Tensor) -> list[Tensor]:
    """Features of one anchor: after its stem at index 0, after block i at index i + 1."""
    seam = model.seams[anchor]
    features = [seam.stem(images)]
    for block in seam.blocks:
        features.append(block(features[-1]))
    return features
