"""nvJPEG's place taken by libjpeg, on the CPU, and pictures for it."""

import io
from contextlib import nullcontext
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image

from lookup_tables.table import Preprocessing
from server.nvjpeg import LANES, Decode, NvJpeg

DEIT = Preprocessing(size=224, crop=0.9, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def encode(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **({"quality": 90} | options))
    return file.getvalue()


def smooth(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 10_000 + height)
    shapes = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC)


def by_libjpeg(file: torch.Tensor, gray: bool) -> torch.Tensor:
    """At full size, chroma repeated, on the CPU; a RuntimeError for what is not sound."""
    try:
        pixels = simplejpeg.decode_jpeg(file.numpy().tobytes(), "GRAY" if gray else "RGB", fastupsample=True)
    except ValueError as error:
        raise RuntimeError(f"BAD_JPEG\n{error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def on_cpu(decode: Decode = by_libjpeg, lanes: int = LANES, preprocessing: Preprocessing = DEIT) -> NvJpeg:
    return NvJpeg(decode, [nullcontext] * lanes, preprocessing)
