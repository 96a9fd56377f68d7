"""JPEGs read fast and exactly, in turns: how long each takes, how far pixels are apart, whether the class is the same.

    python -m benchmarks.decode.decode [--rounds 40] [--images 2000] [--large 200]

Speed on synthetic photographs (smooth shapes and some grain, quality 90) as DeiT takes them, by the processor's clock,
one thread; beside them libjpeg-turbo alone, at the scale that is allowed: no less is left however well a file is looked
over before and resized after. Classes on the digits' test split, enlarged, edges repeated to the sides, as JPEG of
quality 90, by the shipped network's dearest anchor.
"""

import argparse
import io
import time
from collections.abc import Iterator
from functools import partial
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import stitching
from lookup_tables.table import LookupTable, Preprocessing, folder
from server.engine import Engine
from server.images import Limits
from server.jpeg import least, read
from server.pixels import decode
from stitching.data import open_data

SIZES = ((500, 375), (4000, 3000))
GRAIN = 6  # grey levels
BATCH = 100
LARGEST_ANCHOR = 2


def photograph(width: int, height: int, seed: int) -> bytes:
    """A JPEG."""
    generator = np.random.default_rng(seed)
    shapes = generator.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return jpeg(picture + generator.integers(-GRAIN, GRAIN + 1, picture.shape))


def jpeg(pixels: NDArray[np.int16] | NDArray[np.uint8]) -> bytes:
    """(height, width, 3), clipped to 0..255, as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def speed(size: tuple[int, int], preprocessing: Preprocessing, rounds: int) -> None:
    """Prints the times and the differences of one size."""
    ways = {
        exact: partial(decode, preprocessing=preprocessing, limits=Limits(), exact=exact) for exact in (True, False)
    }
    took: dict[bool, list[float]] = {True: [], False: []}
    off, decoder = [], []
    for number in range(rounds):
        body, pixels = photograph(*size, number), {}
        for exact, way in ways.items():
            began = time.thread_time()
            pixels[exact] = way(body).int()
            took[exact].append(time.thread_time() - began)
        began = time.thread_time()
        read(body, "RGB", least(preprocessing))
        decoder.append(time.thread_time() - began)
        off.append((pixels[True] - pixels[False]).abs().float())
    ratios = sorted(slow / fast for slow, fast in zip(took[True], took[False], strict=True))
    exact, fast = (median(took[each]) * 1e3 for each in (True, False))
    print(
        f"{size[0]} x {size[1]}, {len(body) / 1e3:.0f} kB: exact {exact:.2f} ms, fast {fast:.2f} ms, ratio "
        f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), the decoder alone "
        f"{median(decoder) * 1e3:.2f} ms, ratio {median(took[True]) / median(decoder):.2f}; grey levels apart: mean "
        f"{torch.stack(off).mean():.3f}, at most {torch.stack(off).max():.0f}"
    )


def enlarged(size: tuple[int, int], images: int, data: str) -> Iterator[bytes]:
    """Pictures of the test split as JPEGs of this size."""
    model = stitching.load(data)
    side, left = size[1], (size[0] - size[1]) // 2
    mean, std = (
        torch.tensor(each).view(1, 3, 1, 1)
        for each in (model.family.preprocessing.mean, model.family.preprocessing.std)
    )
    left_over = images
    for x, _ in open_data(data, model.family).held_out("test", BATCH):
        for pixels in ((x * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()[:left_over]:
            square = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
            yield jpeg(np.pad(square, ((0, 0), (left, size[0] - side - left), (0, 0)), "edge"))
        left_over -= len(x)
        if left_over <= 0:
            return


def agreement(size: tuple[int, int], images: int, engine: Engine, preprocessing: Preprocessing) -> None:
    """Prints how often both ways give the same class."""
    same, total, off = 0, 0, 0.0
    for body in enlarged(size, images, "digits"):
        pair = [decode(body, preprocessing, Limits(), exact=exact) for exact in (True, False)]
        exact, fast = (ranking.indices[0] for ranking in engine.run(pair, [LARGEST_ANCHOR] * 2))
        same, total = same + (exact == fast), total + 1
        off += float((pair[0].int() - pair[1].int()).abs().float().mean())
    print(
        f"digits as {size[0]} x {size[1]}: the same class for {same} of {total}, {same / total:.2%}; "
        f"{off / total:.3f} grey levels apart"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--large", type=int, default=200, help="images of the larger size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    deit, digits = (LookupTable.load(folder(name)).family.preprocessing for name in ("deit_ti_s_b", "digits"))
    for size in SIZES:
        speed(size, deit, arguments.rounds)
    engine = Engine.load("digits", None, "cpu", 1)
    for size, images in zip(SIZES, (arguments.images, arguments.large), strict=True):
        agreement(size, images, engine, digits)


if __name__ == "__main__":
    main()
