"""How often 16 bits give the class that float32 gives, on a data set with labels; and what that does to top-1.

python -m benchmarks.engine.agreement                       # the shipped network on the digits' test split
python -m benchmarks.engine.agreement --device cuda --dtype float16
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import stitching
from server.device import pick_device
from server.dtype import Variant, convert
from stitching.data import open_data

BATCH = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="digits")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16"))
    parser.add_argument("--images", type=int, help="stop after so many; none: all")
    parser.add_argument("--stitches", help="ids such as 0,2,30; none: all")
    arguments = parser.parse_args()
    device, dtype = pick_device(arguments.device), getattr(torch, arguments.dtype)
    exact = stitching.load(arguments.family, arguments.checkpoint, device)
    narrow = stitching.load(arguments.family, arguments.checkpoint)
    convert(narrow, Variant(dtype, plain_attention=device.type == "cpu"))
    narrow.to(device)
    data = open_data(arguments.data, exact.family)
    ids = [int(part) for part in arguments.stitches.split(",")] if arguments.stitches else range(len(exact.stitches))
    print(f"{arguments.family} on {arguments.data}/{arguments.split}, {arguments.dtype} on {device}")
    print(f"{'stitch':<40} {'images':>7} {'same':>8} {'float32':>8} {arguments.dtype:>8} {'L2 error':>8}")
    for number in ids:
        a, b, classes = [], [], []
        with torch.inference_mode():
            for x, y in data.held_out(arguments.split, BATCH):
                a.append(exact(x.to(device), exact.stitches[number]).cpu())
                b.append(narrow(x.to(device, dtype), narrow.stitches[number]).float().cpu())
                classes.append(y)
                if arguments.images and BATCH * len(classes) >= arguments.images:
                    break
        row = compared(torch.cat(a), torch.cat(b), torch.cat(classes))
        route = exact.stitches[number].route(exact.family.anchor_names)
        print(f"{route:<40} {BATCH * len(classes):>7} {' '.join(f'{share:>8.2%}' for share in row)}", flush=True)


def compared(a: Tensor, b: Tensor, classes: Tensor) -> list[float]:
    """Shares: same class, top-1 of each, and the L2 distance of the logits (N, classes) relative to the first ones'."""
    first, second = a.argmax(1), b.argmax(1)
    equal = [first == second, first == classes, second == classes]
    return [*(float(rows.float().mean()) for rows in equal), float((a - b).norm() / a.norm())]


if __name__ == "__main__":
    main()
