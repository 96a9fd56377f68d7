"""JPEGs read fast and exactly, in turns: how long each takes, how far pixels are apart, whether the class is the same.

    python -m benchmarks.decode.decode [--rounds 40] [--images 2000] [--large 200] [--device cuda]

Speed on synthetic photographs (smooth shapes and some grain, quality 90) as DeiT takes them, by the processor's clock,
one thread; beside them libjpeg-turbo alone, at the scale that is allowed: no less is left however well a file is looked
over before and resized after. Classes on the digits' test split, enlarged, edges repeated to the sides, as JPEG of
quality 90, by the shipped network's dearest anchor, in float32.

With `--device cuda` nvJPEG is one more way, and files a second are told, by the wall clock, of 1 to 8 threads.
"""

import argparse
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lookup_tables.table import LookupTable, Preprocessing, folder
from server.decoding import measured
from server.engine import Engine
from server.images import Limits
from server.jpeg import least, read
from server.nvjpeg import NvJpeg, on_gpu
from server.pixels import decode
from stitching.digits import Digits
from stitching.families import family

SIZES = ((500, 375), (4000, 3000))
FILES = (200, 16)  # of each size, for files a second
THREADS = (1, 2, 4, 8)
GRAIN = 6  # grey levels
BATCH = 100
LARGEST_ANCHOR = 2

Ways = Mapping[str, Callable[[bytes], torch.Tensor]]


def ways(preprocessing: Preprocessing, decoder: NvJpeg | None) -> Ways:
    """How a file can be read; `exact` is what the others are held against."""
    known = {"exact": {"exact": True}, "fast": {}} | ({"nvjpeg": {"other": decoder}} if decoder else {})
    return {name: partial(decode, preprocessing=preprocessing, limits=Limits(), **how) for name, how in known.items()}


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


def speed(bodies: Sequence[bytes], size: tuple[int, int], preprocessing: Preprocessing, by: Ways) -> None:
    """Prints the processor's times of each way for files of one size, and how far their pixels are from the exact ones.

    Of nvJPEG they are not what it takes: the GPU does the work, and its driver spins while it waits.
    """
    took: dict[str, list[float]] = {name: [] for name in by}
    off: dict[str, list[torch.Tensor]] = {name: [] for name in by}
    decoder = []
    for body in bodies:
        pixels = {}
        for name, way in by.items():
            began = time.thread_time()
            pixels[name] = way(body).int()
            took[name].append(time.thread_time() - began)
            off[name].append((pixels["exact"] - pixels[name]).abs().float())
        began = time.thread_time()
        read(body, "RGB", least(preprocessing))
        decoder.append(time.thread_time() - began)
    ratios = sorted(slow / fast for slow, fast in zip(took["exact"], took["fast"], strict=True))
    exact, fast = (median(took[name]) * 1e3 for name in ("exact", "fast"))
    print(
        f"{size[0]} x {size[1]}, {len(bodies[-1]) / 1e3:.0f} kB: exact {exact:.2f} ms, fast {fast:.2f} ms, ratio "
        f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), the decoder alone "
        f"{median(decoder) * 1e3:.2f} ms, ratio {median(took['exact']) / median(decoder):.2f}; grey levels apart: "
        + "; ".join(
            f"{name} mean {torch.stack(each).mean():.3f}, at most {torch.stack(each).max():.0f}"
            for name, each in off.items()
            if name != "exact"
        )
    )


def throughput(bodies: Sequence[bytes], size: tuple[int, int], files: int, by: Ways) -> None:
    """Prints files a second of nvJPEG and of libjpeg-turbo beside it, by the wall clock, by how many threads decode."""
    work = [bodies[number % len(bodies)] for number in range(files)]
    for threads in THREADS:
        rates = measured({"turbo": by["fast"], "nvjpeg": by["nvjpeg"]}, work, threads)
        print(
            f"{size[0]} x {size[1]}, {threads} thread{'s' * (threads > 1)}: fast {rates['turbo']:.0f} files/s, nvjpeg "
            f"{rates['nvjpeg']:.0f}, {rates['nvjpeg'] / rates['turbo']:.2f} times as many"
        )


def digits(images: int) -> Iterator[NDArray[np.uint8]]:
    """The first pictures of the digits' test split, (height, width, 3)."""
    p = family("digits").preprocessing
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (p.mean, p.std))
    whole = Digits(p.mean, p.std, held_out=-(-images // BATCH) * BATCH)  # others would come in other batches
    for x, _ in whole.held_out("test", BATCH):
        yield from ((x * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def enlarged(pixels: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    """A picture as a JPEG of this size."""
    side, left = size[1], (size[0] - size[1]) // 2
    square = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
    return jpeg(np.pad(square, ((0, 0), (left, size[0] - side - left), (0, 0)), "edge"))


def agreement(size: tuple[int, int], images: int, engine: Engine, by: Ways, pool: ThreadPoolExecutor) -> None:
    """Prints how often each way gives the class that exact pixels give."""

    def decoded(pixels: NDArray[np.uint8]) -> list[torch.Tensor]:
        body = enlarged(pixels, size)
        return [way(body) for way in by.values()]

    total, same, off = 0, dict.fromkeys(by, 0), dict.fromkeys(by, 0.0)
    pictures = islice(digits(images), images)
    while batch := list(islice(pictures, BATCH)):
        total += len(batch)
        found = dict(zip(by, zip(*pool.map(decoded, batch), strict=True), strict=True))
        classes = {
            name: [ranking.indices[0] for ranking in engine.run(each, [LARGEST_ANCHOR] * len(each))]
            for name, each in found.items()
        }
        for name, each in found.items():
            same[name] += sum(one == other for one, other in zip(classes["exact"], classes[name], strict=True))
            pairs = zip(found["exact"], each, strict=True)
            off[name] += sum(float((one.int() - other.int()).abs().float().mean()) for one, other in pairs)
    for name in [name for name in by if name != "exact"]:
        print(
            f"digits as {size[0]} x {size[1]}, {name}: the same class for {same[name]} of {total}, "
            f"{same[name] / total:.2%}; {off[name] / total:.3f} grey levels apart"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--large", type=int, default=200, help="images of the larger size")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: nvJPEG as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device, gpu = torch.device(arguments.device), arguments.device == "cuda"
    deit, small = (LookupTable.load(folder(name)).family.preprocessing for name in ("deit_ti_s_b", "digits"))
    decoders = [on_gpu(device, each) if gpu else None for each in (deit, small)]
    by = [ways(each, decoder) for each, decoder in zip((deit, small), decoders, strict=True)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for size, files in zip(SIZES, FILES, strict=True):
            bodies = list(pool.map(lambda seed, size=size: photograph(*size, seed), range(arguments.rounds)))
            by[0]["nvjpeg" if gpu else "fast"](bodies[0])  # the first one makes what is needed
            speed(bodies, size, deit, by[0])
            if gpu:
                throughput(bodies, size, files, by[0])
        engine = Engine.load("digits", None, arguments.device, 1, dtype="float32", max_batch=BATCH)
        for size, images in zip(SIZES, (arguments.images, arguments.large), strict=True):
            agreement(size, images, engine, by[1], pool)
    for decoder in filter(None, decoders):
        print(f"nvjpeg: {dict(decoder.files)}, last failure: {decoder.failure}")


if __name__ == "__main__":
    main()
