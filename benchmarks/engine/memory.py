"""What a checkpoint takes of a process's memory: loaded, and after every stitch has run, against its weights.

    python -m benchmarks.engine.memory --family deit_ti_s_b --checkpoint snnet_deit.pth

Memory that no other process shares, as the system counts it, beyond what torch and the server's code take.
"""

import argparse
from pathlib import Path
from pkgutil import resolve_name

import psutil

from server.process import prepare


def held() -> int:
    """Bytes of this process alone."""
    return int(psutil.Process().memory_full_info().uss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="digits")
    parser.add_argument("--checkpoint", type=Path)
    given = parser.parse_args()
    prepare()  # before torch is loaded, as serving does, and hence by name
    load, zeros, uint8 = map(resolve_name, ("server.engine:Engine.load", "torch:zeros", "torch:uint8"))
    before = held()
    engine = load(given.family, given.checkpoint, "cpu", threads=1, dtype="float32")
    weights = sum(weight.nbytes for weight in engine.model.state_dict().values())
    print(f"weights: {weights / 1e6:.0f} MB")
    print(f"loaded: {(held() - before) / 1e6:.0f} MB, {(held() - before) / weights:.2f} times")
    image = zeros(3, engine.image_size, engine.image_size, dtype=uint8)
    for rows in (1, 8):
        for stitch in engine.model.stitches:
            engine.run([image] * rows, [stitch.id] * rows)
        taken = held() - before
        told = f"{taken / 1e6:.0f} MB, {taken / weights:.2f} times"
        print(f"all {len(engine.model.stitches)} run, batches of {rows}: {told}")


if __name__ == "__main__":
    main()
