"""What a checkpoint's pickles may not say: a kilobyte of them would otherwise take all memory, or all time."""

import argparse
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stitching import pickles
from stitching.checkpoint import CheckpointError, read_tensors
from stitching.pickles import LARGEST_TUPLE, MOST_UNPACKED, Hazard

Write = Callable[[bytes, Path], None]


def archived(pickled: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")


def older(pickled: bytes, path: Path) -> None:
    torch.save({}, path, _use_new_zipfile_serialization=False)
    whole, empty = path.read_bytes(), pickle.dumps({}, 2)
    assert whole.count(empty) == 1
    path.write_bytes(whole.replace(empty, pickled))


class Call:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def doubled(levels: int) -> bytes:
    """Of the empty tuple (it, it), and again, so many times."""
    return b")" + b"".join(b"q%c" % at + b"h%c" % at + b"\x86" for at in range(levels))


KEY = b"\x80\x02}%sK\x00s."
MEMBER = b"\x80\x02cbuiltins\nset\n](%se\x85R."


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    return str(caught.value)


@pytest.mark.parametrize("write", [archived, older])
@pytest.mark.parametrize("hashed", [KEY, MEMBER])
def test_tuples_that_take_for_ever_to_be_hashed(tmp_path: Path, write: Write, hashed: bytes) -> None:
    path = tmp_path / "a.pth"
    write(hashed % doubled(60), path)
    assert f"not opened: it holds a tuple of more than {LARGEST_TUPLE} elements" in refusal(path)
    write(hashed % (b")" + b"\x85" * 100_000), path)  # one in the other: hashing them would use up the C stack
    assert "a tuple of more than" in refusal(path)
    write(hashed % doubled(8), path)
    pickles.check(path)


@pytest.mark.parametrize("write", [archived, older])
@pytest.mark.parametrize(("function", "name"), [(bytearray, "bytearray"), (torch.FloatTensor, "torch.FloatTensor")])
def test_calls_that_take_memory(tmp_path: Path, write: Write, function: object, name: str) -> None:
    path = tmp_path / "a.pth"
    write(pickle.dumps({"a": Call(function, 2**31)}, 2), path)
    message = refusal(path)
    assert f"{name} beside tensors; not opened" in message


def test_an_archive_that_unpacks_to_far_more_than_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(100_000)}, path)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
    assert f"not opened: it unpacks to more than {MOST_UNPACKED} times its size" in refusal(packed)
    torch.save({"a": torch.rand(1000)}, path)
    assert read_tensors(path)["a"].shape == (1000,)


@pytest.mark.parametrize("new", [True, False])
def test_what_training_scripts_store_beside_weights_is_harmless(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "a.pth"
    betas = (0.9, 0.95)
    args = argparse.Namespace(betas=betas, again=[betas] * 50, device=torch.device("cpu"), names={"a", "b"}, c=1j)
    model = torch.nn.Linear(2, 2)
    content = {"model": model.state_dict(), "whole": dict(model.named_parameters()), "args": args}
    torch.save(content | {"dtype": torch.float16, "half": torch.zeros(2).bfloat16(), "size": torch.Size([2])}, path,
               _use_new_zipfile_serialization=new)  # fmt: skip
    assert read_tensors(path).keys() == {"weight", "bias"}


def test_attributes_of_a_dict_do_not_replace_its_methods(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(OrderedDict(weight=torch.zeros(2)), path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    changes = b"}(" + b"".join(b"X%c\x00\x00\x00%sK\x01" % (len(n), n) for n in (b"get", b"items", b"keys")) + b"ub."
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content[:-1] + changes if name.endswith("data.pkl") else content)
    assert torch.load(path, weights_only=True).items == 1
    assert read_tensors(path).keys() == {"weight"}


def test_a_hazard_names_what_is_called_as_torch_does(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    archived(pickle.dumps(print, 2), path)
    with pytest.raises(Hazard, match=r"^GLOBAL __builtin__\.print$"):
        pickles.check(path)
