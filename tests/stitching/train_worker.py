"""Trains a tiny family as the JSON config on the command line says: one process of `torchrun`'s."""

import sys

from small_families import TINY, TINY_RESNET, registered

from stitching.train import train
from stitching.train_config import TrainConfig

if __name__ == "__main__":
    with registered(TINY), registered(TINY_RESNET):
        sys.stdout.write(f"{train(TrainConfig.model_validate_json(sys.argv[1]))}\n")
