"""Images a second by batch size on a device: our engine, and what it stands on.

    python -m benchmarks.engine.batches --device cuda

run      Engine.run on one thread: uint8 images on the host in, classes out
two      the same on as many threads as the engine takes at once
forward  what the device computes alone: images lie there already, on a GPU as one CUDA graph
timm     timm's network in the same format, eager, normalised images lie on the device already

Weights are random. Medians of `--rounds` stretches of about `--seconds`, each of one batch at least.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import timm
import torch

from server.device import pick_device
from server.engine import Engine
from server.process import prepare
from stitching import SNNet
from stitching.families import family
from stitching.model import plainly

Call = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--family", default="deit_ti_s_b")
    parser.add_argument("--most", type=int, default=256, help="rows of the largest batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.03)
    given = parser.parse_args()
    prepare()
    device = pick_device(given.device)
    engine = Engine(SNNet(family(given.family)), device, max_batch=given.most)
    for record in engine.recordings(range(len(engine.model.family.anchors))):
        record()
    print(f"{engine.device_slug}, {engine.precision.variant.name}, {engine.lanes} lanes, torch {torch.__version__}")
    print("\n| anchor | rows | run | two | forward | timm |\n| --- | --- | --- | --- | --- | --- |")
    for stitch, spec in enumerate(engine.model.family.anchors):
        eager = timm.create_model(spec.timm, num_classes=engine.model.family.classes, **spec.arguments).eval()
        eager.to(device, engine.precision.variant.dtype)
        for power in range(given.most.bit_length()):
            rows = 1 << power
            found = [rate(call, each, given) for call, each in contestants(engine, eager, stitch, rows)]
            print(f"| {spec.timm} | {rows} | " + " | ".join(f"{each:.0f}" for each in found) + " |", flush=True)


def contestants(engine: Engine, eager: torch.nn.Module, stitch: int, rows: int) -> Iterator[tuple[Call, int]]:
    """What is timed, and how many images it does."""
    p, device = engine.model.family.preprocessing, engine.device
    images = list(torch.randint(0, 256, (rows, 3, p.size, p.size), dtype=torch.uint8))
    stitches, lanes = [stitch] * rows, engine.lanes
    yield lambda: engine.run(images, stitches), rows
    with ThreadPoolExecutor(lanes) as threads:
        times = 4 * lanes  # batches, or the ends would count
        yield lambda: list(threads.map(lambda _: engine.run(images, stitches), range(times))), rows * times
    pixels = torch.stack(images).to(device)
    yield synchronised(forward(engine, pixels, stitches), device), rows
    normalised = torch.randn(rows, 3, p.size, p.size, device=device, dtype=engine.precision.variant.dtype)
    yield synchronised(lambda: eager(normalised), device), rows


def forward(engine: Engine, pixels: torch.Tensor, stitches: list[int]) -> Call:
    """The engine's own computation on resident pixels."""
    if engine.device.type != "cuda":
        return lambda: engine._forward(pixels, stitches, plainly)
    side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            engine._forward(pixels, stitches, plainly)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        engine._forward(pixels, stitches, plainly)
    return graph.replay


def synchronised(call: Call, device: torch.device) -> Call:
    """The same, done when it returns."""

    @torch.inference_mode()
    def done() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return done


def rate(call: Call, images: int, given: argparse.Namespace) -> float:
    """Images a second."""
    for _ in range(3):  # the first ones are slower
        call()
    took = []
    for _ in range(given.rounds):
        times, began = 0, time.perf_counter()
        while not times or time.perf_counter() - began < given.seconds:
            call()
            times += 1
        took.append((time.perf_counter() - began) / times)
    return images / median(took)


if __name__ == "__main__":
    main()
