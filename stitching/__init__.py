"""Stitchable neural networks (SN-Net, CVPR 2023): anchors joined by stitching layers into many networks.

model = stitching.load("digits")
logits = model(images, model.stitches[24])
"""

from stitching.checkpoint import CheckpointError, load, save
from stitching.families import Family, families
from stitching.model import SNNet
from stitching.stitch import Segment, Stitch

__all__ = ["CheckpointError", "Family", "SNNet", "Segment", "Stitch", "families", "load", "save"]
