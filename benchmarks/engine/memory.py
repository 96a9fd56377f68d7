"""What a checkpoint takes of a process's memory: loaded, and after every stitch has run, against its weights.

    python -m benchmarks.engine.memory --family deit_ti_s_b --checkpoint snnet_deit.pth

What has no file behind it, as the system counts it, beyond what torch and the server take before; and, for itself, the
pages of their code that are read in as they are first needed.
"""

import argparse
from pathlib import Path
from pkgutil import resolve_name

import psutil

from server.process import give_back_freed_memory, prepare


def held() -> tuple[int, int]:
    """Bytes of memory without and with files behind it."""
    now = psutil.Process().memory_info()
    return now.rss - now.shared, now.shared


def told(before: tuple[int, int], weights: int) -> str:
    """What is held beyond that before."""
    own, code = (now - then for now, then in zip(held(), before, strict=True))
    return f"{own / 1e6:.0f} MB, {own / weights:.2f} times the weights; and {code / 1e6:.0f} MB of code"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="digits")
    parser.add_argument("--checkpoint", type=Path)
    given = parser.parse_args()
    prepare()  # before torch is loaded, as serving does, and hence by name
    load, zeros, uint8 = map(resolve_name, ("server.engine:Engine.load", "torch:zeros", "torch:uint8"))
    give_back_freed_memory()
    before = held()
    engine = load(given.family, given.checkpoint, "cpu", threads=1, dtype="float32")
    weights = sum(weight.nbytes for weight in engine.model.state_dict().values())
    print(f"weights: {weights / 1e6:.0f} MB")
    print(f"loaded: {told(before, weights)}")
    image = zeros(3, engine.image_size, engine.image_size, dtype=uint8)
    for rows in (1, 8):
        for stitch in engine.model.stitches:
            engine.run([image] * rows, [stitch.id] * rows)
        print(f"all {len(engine.model.stitches)} run, batches of {rows}: {told(before, weights)}")


if __name__ == "__main__":
    main()
