"""First weights of the stitching layers, from both sides' features (Pan et al., CVPR 2023, section 3.2).

With X the features before a join, a column of ones appended, and Y those after it, the layer is pinv(X) Y. The
reference's pseudo-inverse is truncated: directions of X whose singular value is at most
max(rows, columns) * eps(float32) of the largest are dropped. Only the products X'X and X'Y are kept, in float64, so
any number of images can be used.
"""

from collections.abc import Iterable
from itertools import groupby

import torch
from torch import Tensor

from stitching.model import SNNet


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


@torch.no_grad()
def initialise(model: SNNet, batches: Iterable[Tensor]) -> None:
    """Set every stitching layer of `model` from batches of normalised images (N, 3, H, W).

    A layer used at several positions gets the mean of their solutions. The model is used in eval mode and put back.
    """
    seams = model.seams
    sums = {
        join: NormalEquations(seams[join.front].widths[join.stop], seams[join.end].widths[join.start])
        for join in model.joins
    }
    training = model.training
    model.eval()
    for images in batches:
        features = [anchor_features(model, anchor, images) for anchor in range(len(seams))]
        for join, equations in sums.items():
            equations.add(features[join.front][join.stop], features[join.end][join.start])
    model.train(training)
    for key, joins in groupby(model.joins, key=lambda join: join.layer):
        solutions = [sums[join].solve() for join in joins]
        weights, biases = zip(*solutions, strict=True)
        model.layer(key).set(torch.stack(weights).mean(0), torch.stack(biases).mean(0))


def anchor_features(model: SNNet, anchor: int, images: Tensor) -> list[Tensor]:
    """Features of one anchor, their width last: after its stem at index 0, after block i at index i + 1."""
    seam = model.seams[anchor]
    features = [seam.stem(images)]
    for block in seam.blocks:
        features.append(block(features[-1]))
    return [feature.movedim(1, -1) for feature in features] if seam.layout == "nchw" else features
