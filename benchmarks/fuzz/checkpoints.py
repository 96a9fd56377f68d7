"""Fuzz target: checkpoints. What begins with ZIP or a pickle is a .pth, PICKLE a .pth's pickle alone, else safetensors.

A pickle alone is put into an archive with the seeds' storages: mutations of a whole archive hardly reach its pickle.
"""

import io
import pickle
import random
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.fuzz.target import Target
from stitching import checkpoint
from stitching.families import AnchorSpec, Family, Preprocessing
from stitching.model import SNNet

PICKLE, ZIP, LEGACY = b"pickle:", b"PK\x03\x04", b"\x80\x02"
_SHAPE = {"img_size": 8, "patch_size": 4, "depth": 1, "num_heads": 1}
_ANCHORS = tuple(AnchorSpec(f"w{w}", "vit_tiny_patch16_224", {**_SHAPE, "embed_dim": w}) for w in (2, 4))
FAMILY = Family("tiny", _ANCHORS, classes=2, preprocessing=Preprocessing(size=8))


class Bomb:
    """Pickles as a call of a function that checkpoints may name."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self._call


class Checkpoints:
    """Loads files as the family's weights, from a folder of its own."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        checkpoint.FAMILIES = {FAMILY.name: FAMILY}  # type: ignore[misc] - those whose names an error may give
        checkpoint.named_family = lambda _: FAMILY  # type: ignore[assignment]
        self._kept = TemporaryDirectory()
        self._folder = Path(self._kept.name)
        model = SNNet(FAMILY)
        checkpoint.unfilled = lambda _: model  # made anew it would take most of the time
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, 0.5)
        state = model.state_dict()
        lora = {"stitch_layers.0.0.lora_A": torch.zeros(1, 2), "stitch_layers.0.0.lora_B": torch.zeros(4, 1)}
        checkpoint.save(model, self._folder / "whole.safetensors")
        whole, legacy = self._saved({"model": state | lora}), self._saved(state, _use_new_zipfile_serialization=False)
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            contents = {name: archive.read(full) for name, full in names.items()}
        self._records = {name: content for name, content in contents.items() if name != "data.pkl"}
        self.seeds = (
            *((self._folder / "whole.safetensors").read_bytes(), whole, legacy, PICKLE + contents["data.pkl"]),
            *(self._pickled(of) for of in ({"state_dict": state}, {"model": state, "epoch": 3}, [state], {})),
            *(self._saved(of) for of in ({"a": torch.zeros(2).to_sparse(), "b": torch.zeros(2, device="meta")},)),
            *(PICKLE + bomb for bomb in bombs()),
        )

    def _saved(self, content: object, **options: bool) -> bytes:
        file = io.BytesIO()
        torch.save(content, file, **options)
        return file.getvalue()

    def _pickled(self, content: object) -> bytes:
        with zipfile.ZipFile(io.BytesIO(self._saved(content))) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            return PICKLE + archive.read(name)

    def run(self, data: bytes) -> SNNet:
        """Loads the checkpoint; asserts that its network is finite."""
        path = self._folder / ("mutated.pth" if data.startswith((PICKLE, ZIP, LEGACY)) else "mutated.safetensors")
        path.write_bytes(self._archive(data.removeprefix(PICKLE)) if data.startswith(PICKLE) else data)
        with warnings.catch_warnings(action="ignore"):
            model = checkpoint.load(FAMILY.name, path)
        assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
        return model

    def _archive(self, pickled: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in (("data.pkl", pickled), *self._records.items()):
                archive.writestr(f"archive/{name}", content)
        return file.getvalue()


def bombs() -> tuple[bytes, ...]:
    """Pickles of few bytes that become many, that take for ever, and that call what they may not."""
    calls = (Bomb(bytearray, 2**40), Bomb(torch.FloatTensor, 2**40), Bomb(print, "code"))
    doubled = b"".join(b"q%cj%s\x86" % (level, level.to_bytes(4, "little")) for level in range(60))  # (it, it)
    keyed = b"\x80\x02})" + doubled + b"K\x00s."
    collected = b"\x80\x02cbuiltins\nset\n](" + b")" + doubled + b"e\x85R."
    return *(pickle.dumps({"a": call}, 2) for call in calls), keyed, collected


def headed(data: bytes, chance: random.Random) -> bytes:
    """Mostly, a safetensors file whose first number is its header's length again."""
    end = data.rfind(b"}", 0, 16_384)
    if data.startswith((PICKLE, ZIP, LEGACY)) or end < 8 or chance.random() < 0.2:
        return data
    return (end - 7).to_bytes(8, "little") + data[8:]


_CHECKPOINTS = Checkpoints()
TARGET = Target(_CHECKPOINTS.run, (checkpoint.CheckpointError,), _CHECKPOINTS.seeds, headed)
