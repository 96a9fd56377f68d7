"""`stitchserve train`."""

from stitching.train import train
from stitching.train_config import TrainConfig


class Train(TrainConfig):
    """Train a family on a folder of images, or on the built-in task 'digits'. Run again, it resumes."""

    def cli_cmd(self) -> None:
        """Train, then say where the weights are."""
        print(train(self))
