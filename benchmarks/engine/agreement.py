"""How often 16 bits give the class that float32 gives, on a data set with labels; and what that does to top-1.

python -m benchmarks.engine.agreement                       # the shipped network on the digits' test split
python -m benchmarks.engine.agreement --device cuda --dtype float16
"""

import argparse
from pathlib import Path

import torch

import stitching
from server.device import pick_device
from server.dtype import Variant, convert
from stitching.data import open_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="digits")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16"))
    parser.add_argument("--stitches", help="ids such as 0,2,30; none: those on the frontier")
    arguments = parser.parse_args()
    device, dtype = pick_device(arguments.device), getattr(torch, arguments.dtype)
    exact = stitching.load(arguments.family, arguments.checkpoint, device)
    narrow = stitching.load(arguments.family, arguments.checkpoint)
    convert(narrow, Variant(dtype, plain_attention=device.type == "cpu"))
    narrow.to(device)
    data = open_data(arguments.data, exact.family)
    ids = [int(part) for part in arguments.stitches.split(",")] if arguments.stitches else range(len(exact.stitches))
    print(f"{arguments.family} on {arguments.data}/{arguments.split}, {arguments.dtype} on {device}")
    print(
        f"{'stitch':<40} {'images':>7} {'same class':>11} {'top-1 float32':>14} {arguments.dtype:>10} {'L2 error':>9}"
    )
    for number in ids:
        same = right = right_narrow = images = 0
        error = scale = 0.0
        with torch.inference_mode():
            for x, y in data.held_out(arguments.split, 250):
                a = exact(x.to(device), exact.stitches[number])
                b = narrow(x.to(device, dtype), narrow.stitches[number])
                first, second = a.argmax(1).cpu(), b.argmax(1).cpu()
                images += len(y)
                same += int((first == second).sum())
                right += int((first == y).sum())
                right_narrow += int((second == y).sum())
                error += float((a - b).square().sum())
                scale += float(a.square().sum())
        route = exact.stitches[number].route(exact.family.anchor_names)
        print(
            f"{route:<40} {images:>7} {same / images:>11.2%} {right / images:>14.2%} {right_narrow / images:>10.2%} "
            f"{(error / scale) ** 0.5:>9.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
