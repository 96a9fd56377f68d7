"""What a process without torch makes of a picture that its decoder left larger than it is to be."""

import pytest
import torch
from PIL import Image
from test_images import DEIT, LIMITS, encode, noise, smooth

from server.images import finished, read
from server.pixels import decode

SHARP = 2000  # pixels a side up to which noise is sent: beyond, the file would be too large


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (1201, 901), (1080, 1920), (2999, 4001), (250, 251), (4, 3)])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_it_is_what_torch_makes_of_it_within_two_grey_levels(
    size: tuple[int, int], orientation: int, mode: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = noise(*size) if max(size) < SHARP else smooth(*size)
    body = encode(picture.convert(mode), "JPEG", quality=90, exif=exif)
    here = finished(read(body, DEIT, LIMITS), DEIT)
    assert here.shape == (224, 224, len(mode))
    off = (torch.tensor(here).permute(2, 0, 1).int() - decode(body, DEIT, LIMITS).int()).abs()
    assert off.max() <= 2
    assert off.float().mean() < 0.02


def test_what_needs_no_finishing_is_left_alone() -> None:
    picture = read(encode(smooth(500, 375), "PNG"), DEIT, LIMITS)
    assert finished(picture, DEIT) is picture.pixels
