"""Whether a family's anchors fit together, found out before an image has to be answered."""

import torch
from torch import Tensor

from stitching.least_squares import anchor_features
from stitching.model import SNNet
from stitching.stitch import Join, Segment, Stitch


@torch.inference_mode()
def check_joins(model: SNNet) -> None:
    """Run one blank image through each anchor; ValueError for an anchor that does not take the family's images.

    ValueError too, with both shapes, where features after a join would be of another shape than those before it.
    """
    training = model.training
    model.eval()
    features = [_features(model, anchor) for anchor in range(len(model.seams))]
    model.train().train(training)  # training mode first: there LeViT forgets the biases it keeps while evaluating
    for join in model.joins:
        front, end = features[join.front][join.stop], features[join.end][join.start]
        if front.shape[1:-1] != end.shape[1:-1]:
            raise ValueError(
                f"family {model.family.name!r}: {_route(model, join)} cannot be joined: {_words(front)} lead to "
                f"{_words(end)}; give these anchors the same image size, patches, class token and strides, or choose "
                "other stages"
            )


def _features(model: SNNet, anchor: int) -> list[Tensor]:
    weight = next(model.parameters())
    size = model.family.preprocessing.size
    try:
        return anchor_features(model, anchor, weight.new_zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"family {model.family.name!r}: anchor {model.family.anchor_names[anchor]!r} does not take images of "
            f"{size} x {size} pixels ({error}); change preprocessing.size or the anchor's arguments, such as img_size"
        ) from error


def _route(model: SNNet, join: Join) -> str:
    parts = Segment(join.front, 0, join.stop), Segment(join.end, join.start, model.seams[join.end].depth)
    return Stitch(0, parts, (join.layer,)).route(model.family.anchor_names)


def _words(features: Tensor) -> str:
    """Features (1, ..., width) in words: `17 tokens`, `8 x 8 pixels`."""
    sizes = features.shape[1:-1]
    return f"{' x '.join(map(str, sizes))} {'tokens' if len(sizes) == 1 else 'pixels'}"
