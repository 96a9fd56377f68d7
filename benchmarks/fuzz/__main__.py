"""Feeds a function mutated files and keeps those at which it fails: `python -m benchmarks.fuzz images --runs 100000`.

A failure is an error other than the function's own refusals, more than a second of processor time, or, over all runs,
memory that grows. With atheris (`pip install atheris`) the mutations are guided by the coverage of the Python code;
without it they are blind and the same in every run. A target is a module beside this one with a TARGET, as images.py.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fuzz.target import Target

SLOW = 1.0  # seconds of processor time
INTERESTING = (
    b"\x00",
    b"\xff",
    b"\x7f\xff",
    b"\xff\xff",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x80\x00\x00\x00",
)
COVERED = ["server", "lookup_tables", "stitching", "PIL", "torch._weights_only_unpickler"]
LONGEST = 64 * 1024  # bytes of a mutated file


@dataclass
class Judge:
    """Runs a target, counts what came of it, and keeps the first file of every kind of failure in `folder`."""

    target: Target
    runs: int
    folder: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    settled: int = 0

    def __call__(self, data: bytes) -> None:
        """One run; after the last one, the report."""
        started = time.process_time()
        outcome = self._outcome(data)
        seconds = time.process_time() - started
        self.slowest = max(self.slowest, seconds)
        self._keep(data, outcome if seconds <= SLOW else "SLOW")
        if self.outcomes.total() == self.runs // 5:
            self.settled = psutil.Process().memory_info().rss
        if self.outcomes.total() == self.runs:
            self.report()

    def _outcome(self, data: bytes) -> str:
        try:
            self.target.run(data)
        except self.target.refusals as refusal:
            return type(refusal).__name__
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"FAILED {type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
        return "taken"

    def _keep(self, data: bytes, outcome: str) -> None:
        self.outcomes[outcome] += 1
        if outcome.startswith(("FAILED", "SLOW")) and self.outcomes[outcome] == 1:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / sha256(data).hexdigest()[:16]
            file.write_bytes(data)
            print(f"{outcome}: {file}", flush=True)

    def report(self) -> None:
        """Prints what came of all runs."""
        grown = (psutil.Process().memory_info().rss - self.settled) / 1e6
        print(f"{self.outcomes.total()} runs: {dict(self.outcomes.most_common())}")
        print(f"slowest {self.slowest:.3f} s; memory grew by {grown:.1f} MB over the last four fifths", flush=True)


def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Some edits: bytes replaced, removed, repeated, or taken from another file."""
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = min(int(chance.expovariate(8 / (len(data) + 1))), len(data))  # most of what matters stands in front
        length = chance.choice((1, 1, 2, 4, 16, 256))
        start = chance.randrange(len(other) or 1)
        new = chance.choice((
            *(b"", chance.choice(INTERESTING), chance.randbytes(length), other[start : start + length]),
            data[at : at + length] * chance.choice((2, 3, 50)),
            bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]),
        ))  # fmt: skip
        data = data[:at] + new + data[at + chance.choice((0, len(new), length)) :]
    return data[:LONGEST]


def blind(target: Target, judge: Judge, seed: int) -> None:
    """The same mutations for the same seed, whatever they reach."""
    chance = random.Random(seed)
    for _ in range(judge.runs):
        data = mutate(chance.choice(target.seeds), chance.choice(target.seeds), chance)
        judge(target.repair(data, chance))


def guided(atheris: Any, target: Target, judge: Judge, seed: int) -> None:
    """Mutations of what reached new code; ends the process."""

    def mutator(data: bytes, longest: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.5:
            data = atheris.Mutate(data, longest)
        else:
            data = mutate(data, chance.choice(target.seeds), chance)
        return target.repair(data, chance)[:longest]

    with tempfile.TemporaryDirectory() as corpus:
        for number, file in enumerate(target.seeds):
            Path(corpus, str(number)).write_bytes(file)
        flags = (f"-runs={judge.runs}", f"-seed={seed}", f"-max_len={LONGEST}", "-rss_limit_mb=0", "-timeout=60")
        atheris.Setup([sys.argv[0], *flags, corpus], judge, custom_mutator=mutator)
        atheris.Fuzz()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("target", help="module beside this one")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blind", action="store_true", help="do without atheris")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder for files that fail")
    options = parser.parse_args()
    atheris = import_module("atheris") if find_spec("atheris") and not options.blind else None
    with atheris.instrument_imports(include=COVERED) if atheris else nullcontext():
        target = import_module(f"benchmarks.fuzz.{options.target}").TARGET
    judge = Judge(target, options.runs, options.out)
    if atheris:
        guided(atheris, target, judge, options.seed)
    else:
        blind(target, judge, options.seed)


if __name__ == "__main__":
    main()
