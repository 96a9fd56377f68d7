"""Weights and inputs by rule: those which the stored answers in tests/fixtures/snnet were computed with.

Every tensor is drawn from a generator of its own, seeded by (seed, CRC-32 of its key), so no order matters.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "snnet"
SEED = 20
FIXED = {
    "num_batches_tracked": torch.int64,
    "relative_position_index": torch.int64,
    "attention_bias_idxs": torch.int64,
    "attn_mask": torch.float32,
}


def stored(name: str) -> Any:
    """The content of a JSON fixture."""
    return json.loads((FIXTURES / f"{name}.json").read_text())


def arrays(name: str) -> dict[str, Tensor]:
    """The arrays of an npz fixture."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def images(shape: Sequence[int], seed: int = SEED) -> Tensor:
    """The normalised input that goes with the weights of that seed."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(shape), dtype=np.float32))


def weight(key: str, shape: Sequence[int], seed: int = SEED) -> Tensor:
    """One tensor of a checkpoint. What an architecture fixes by itself is zero here: nobody should believe a file."""
    kind = key.rpartition(".")[2]
    if kind in FIXED:
        return torch.zeros(tuple(shape), dtype=FIXED[kind])
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    noise = torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))
    if kind == "running_mean":
        return noise * 0.1
    if kind == "running_var":
        return 1 + noise.abs() * 0.1
    if len(shape) >= 2 and kind in {"weight", "lora_A"}:
        return noise * float(np.float32(1 / math.sqrt(math.prod(shape[1:]))))
    if len(shape) >= 2:  # class token, position embedding, attention bias
        return noise if kind == "lora_B" else noise * 0.2
    return noise * 0.1 if kind == "bias" else 1 + noise * 0.1


def state(shapes: Mapping[str, Sequence[int]], seed: int = SEED) -> dict[str, Tensor]:
    """A whole state_dict."""
    return {key: weight(key, shape, seed) for key, shape in shapes.items()}
