"""A process that runs batches when told to, one JSON line in, one out. The others here start several and take turns.

A line in: {"run": "engine" | "timm" | "openvino" | "products", "family": ..., "stitch": id, "rows": n, "size": pixels}.
A line out: {"wall": seconds, "cpu": seconds of this process, "units": images that the decoding thread did meanwhile}.
"""

import argparse
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torchvision.transforms.functional import normalize

from server.engine import Engine
from server.process import keep_freed_memory
from stitching import SNNet, load
from stitching.checkpoint import shipped
from stitching.families import Family, family

try:
    import openvino
except ImportError:
    openvino = None

PICTURE = 500, 375
SIDE = 1536
"""Of the square matrices whose product shows what the processor can do at most."""


class Worker:
    """The other end of such a process."""

    def __init__(self, *options: str, env: Mapping[str, str], python: str = sys.executable) -> None:
        command = [python, "-m", "benchmarks.engine.worker", *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, **what: object) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class Decoder(threading.Thread):
    """Decodes one JPEG over and over while it is awake."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*PICTURE[::-1], 3), dtype=np.uint8))
        buffer = io.BytesIO()
        picture.resize((60, 45)).resize(PICTURE).save(buffer, "JPEG", quality=90)
        self._jpeg, self.done, self.awake = buffer.getvalue(), 0, threading.Event()

    def run(self) -> None:
        while self.awake.wait():
            Image.open(io.BytesIO(self._jpeg)).convert("RGB").resize((256, 256))
            self.done += 1


def resized(name: str, size: int | None) -> Family:
    """A named family, its anchors and preprocessing for images of another size if one is given."""
    chosen = family(name)
    if not size or size == chosen.preprocessing.size:
        return chosen
    anchors = tuple(replace(a, arguments={**a.arguments, "img_size": size}) for a in chosen.anchors)
    return replace(chosen, anchors=anchors, preprocessing=replace(chosen.preprocessing, size=size))


@cache
def engine(name: str, size: int | None, dtype: str, threads: int | None, device: str = "cpu") -> Engine:
    chosen = resized(name, size)
    torch.manual_seed(0)
    model = load(name) if shipped(name).is_file() and chosen == family(name) else SNNet(chosen)
    return Engine(model, torch.device(device), threads, dtype=dtype)


@cache
def anchor(name: str, stitch: int, size: int | None) -> torch.nn.Module:
    chosen = resized(name, size)
    spec = chosen.anchors[SNNet(chosen).stitches[stitch].segments[0].anchor]
    torch.manual_seed(0)
    return timm.create_model(spec.timm, num_classes=chosen.classes, **spec.arguments).eval().requires_grad_(False)


@cache
def square() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)


@cache
def compiled(name: str, stitch: int, size: int | None, rows: int, threads: int | None) -> Any:
    pixels = size or family(name).preprocessing.size
    model = openvino.convert_model(anchor(name, stitch, size), example_input=torch.zeros(rows, 3, pixels, pixels))
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads or torch.get_num_threads()}
    return openvino.compile_model(model, "CPU", hints)


def run(what: Mapping[str, Any], threads: int | None) -> None:
    name, stitch, rows, size = what["family"], what["stitch"], what["rows"], what.get("size")
    pixels = size or family(name).preprocessing.size
    if what["run"] == "engine":
        stitches = stitch if isinstance(stitch, list) else [stitch] * rows
        images = [torch.full((3, pixels, pixels), 128, dtype=torch.uint8)] * len(stitches)
        engine(name, size, what.get("dtype", "auto"), threads).run(images, stitches)
    elif what["run"] == "timm":
        images = [torch.full((3, pixels, pixels), 128, dtype=torch.uint8)] * rows
        p = family(name).preprocessing
        with torch.inference_mode():
            x = normalize(torch.stack(images) / 255, list(p.mean), list(p.std))
            top = anchor(name, stitch, size)(x).softmax(dim=1).topk(100)
            list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    elif what["run"] == "products":
        torch.mm(*square())
    else:
        compiled(name, stitch, size, rows, threads)(np.zeros((rows, 3, pixels, pixels), np.float32))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", action="store_true", help="keep freed memory")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--decode", action="store_true", help="decode images in another thread meanwhile")
    arguments = parser.parse_args()
    if arguments.keep:
        keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    decoder = Decoder()
    decoder.start()
    warm: set[str] = set()
    for line in sys.stdin:
        what = json.loads(line)
        if str(what) not in warm:
            run(what, arguments.threads)  # whatever is made or loaded first
            warm.add(str(what))
        if arguments.decode:
            decoder.awake.set()
        decoded, wall, cpu = decoder.done, time.perf_counter(), time.process_time()
        for _ in range(what.get("times", 1)):
            run(what, arguments.threads)
        answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "units": decoder.done - decoded}
        decoder.awake.clear()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
