"""Weights on disk: what is read, and what is refused with the file and the key named."""

import argparse
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_families import TINY, registered, with_recipe_weights
from torch import Tensor

import stitching
from stitching.checkpoint import CheckpointError, load_anchors, read_tensors, save, sha256
from stitching.model import SNNet

HEAD = "anchors.0.head.weight"


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[None]:
    with registered(TINY):
        yield


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return dict(with_recipe_weights(TINY).state_dict())


def refusal(path: Path, family: str = "tiny") -> str:
    """What loading the file is answered with."""
    with pytest.raises(CheckpointError) as caught:
        stitching.load(family, path)
    message = str(caught.value)
    assert str(path) in message
    return message


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    model = with_recipe_weights(TINY)
    path = tmp_path / "new" / "tiny.safetensors"
    assert save(model.train(), path) == sha256(path)
    assert path.stat().st_mode & 0o777 == 0o644, "a server of another user reads it"
    loaded = stitching.load("tiny", path)
    assert not loaded.training
    assert loaded.family == TINY
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == ["tiny.safetensors"]


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    hashes = {save(with_recipe_weights(TINY), tmp_path / f"{i}.safetensors") for i in range(8)}
    assert len(hashes) == 1
    assert stitching.load("tiny", tmp_path / "7.safetensors").family == TINY


def test_a_saved_file_says_what_it_holds(tmp_path: Path) -> None:
    save(with_recipe_weights(TINY), tmp_path / "tiny.safetensors")
    with safe_open(tmp_path / "tiny.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["schema"], metadata["family"]) == ("1", "tiny")
    assert json.loads(metadata["config"]) == json.loads(json.dumps(TINY.config()))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "epoch": 3}, lambda w: {"state_dict": w}])
def test_released_layouts_are_read(
    tmp_path: Path, weights: dict[str, Tensor], wrap: Callable[[Any], Any], zipped: bool
) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(wrap(weights), path, _use_new_zipfile_serialization=zipped)
    loaded = stitching.load("tiny", str(path)).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())


def test_training_arguments_and_optimizer_beside_the_weights_do_no_harm(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    optimizer = torch.optim.AdamW(with_recipe_weights(TINY).parameters()).state_dict()
    arguments = argparse.Namespace(lr=1e-4, output_dir="out", distributed=True, device=None)
    path = tmp_path / "tiny.pth"
    torch.save({"model": weights, "optimizer": optimizer, "epoch": 49, "args": arguments}, path)
    assert torch.equal(stitching.load("tiny", path).state_dict()[HEAD], weights[HEAD])


def test_half_precision_becomes_float32(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "tiny.pth"
    torch.save({key: value.half() for key, value in weights.items()}, path)
    loaded = stitching.load("tiny", path).state_dict()
    assert all(value.dtype == torch.float32 for value in loaded.values())
    assert torch.equal(loaded[HEAD], weights[HEAD].half().float())


FAULTS: dict[str, tuple[Callable[[Tensor], dict[str, Any]], list[str]]] = {
    "missing": (lambda _: {}, [f"key '{HEAD}' is missing"]),
    "unexpected": (lambda w: {HEAD: w, "extra.weight": w}, ["key 'extra.weight' is unexpected"]),
    "misshapen": (lambda w: {HEAD: w[:2]}, [f"key '{HEAD}' has shape (2, 8), expected (3, 8)"]),
    "nan": (lambda w: {HEAD: w * float("nan")}, [f"key '{HEAD}'", "not finite"]),
    "infinite": (lambda w: {HEAD: w / 0}, [f"key '{HEAD}'", "not finite"]),
    "infinite in float32": (lambda w: {HEAD: w.double() * 1e200}, [f"key '{HEAD}'", "not finite"]),
    "integers": (lambda w: {HEAD: w.long()}, [f"key '{HEAD}'", "not finite floating-point"]),
    "complex": (lambda w: {HEAD: w.to(torch.complex64)}, [f"key '{HEAD}'", "not finite floating-point"]),
    "without data": (lambda w: {HEAD: w.to("meta")}, [f"key '{HEAD}'", "not finite floating-point"]),
    "no tensor": (lambda _: {HEAD: "0.1"}, [f"key '{HEAD}' holds str, not a tensor"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_tensor_is_named(tmp_path: Path, weights: dict[str, Tensor], fault: str) -> None:
    change, words = FAULTS[fault]
    path = tmp_path / "tiny.pth"
    torch.save({**{key: value for key, value in weights.items() if key != HEAD}, **change(weights[HEAD])}, path)
    message = refusal(path)
    assert all(word in message for word in words), message


def test_faults_are_named_in_our_own_format_too(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "tiny.safetensors"
    metadata = {"schema": "1", "family": "tiny", "config": json.dumps(TINY.config())}
    save_file({key: value for key, value in weights.items() if "stitch_layers" not in key}, path, metadata)
    assert "key 'stitch_layers.0.0.transform.weight' is missing (and 1 more)" in refusal(path)
    save_file({**weights, HEAD: weights[HEAD] * float("nan")}, path, metadata)
    assert f"key '{HEAD}'" in refusal(path)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {}, {"model": 3}, {"model": {}}, {1: torch.ones(3)}])
def test_files_without_a_dict_of_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "tiny.pth")
    assert "tensor" in refusal(tmp_path / "tiny.pth")


def test_a_checkpoint_of_another_family_is_told_from_its_shapes(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "tiny.pth"
    torch.save({"model": weights}, path)
    message = refusal(path, family="digits")
    assert "not a checkpoint of family 'digits'" in message
    assert message.endswith("It fits family 'tiny'")


def test_a_checkpoint_of_another_family_is_told_from_its_metadata(tmp_path: Path) -> None:
    save(with_recipe_weights(TINY), tmp_path / "tiny.safetensors")
    message = refusal(tmp_path / "tiny.safetensors", family="digits")
    assert "metadata key 'family' says 'tiny', asked for 'digits'" in message


def test_a_checkpoint_of_another_version_of_the_family_is_refused(tmp_path: Path) -> None:
    save(with_recipe_weights(replace(TINY, norm_after_stitch=False)), tmp_path / "tiny.safetensors")
    assert "metadata key 'config' differs" in refusal(tmp_path / "tiny.safetensors")


@pytest.mark.parametrize("config", ["", "{", "[" * 100_000])
def test_a_broken_config_in_the_metadata_is_refused(tmp_path: Path, weights: dict[str, Tensor], config: str) -> None:
    save_file(weights, tmp_path / "tiny.safetensors", {"schema": "1", "family": "tiny", "config": config})
    assert "metadata key 'config' differs" in refusal(tmp_path / "tiny.safetensors")


def test_safetensors_without_our_metadata_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, tmp_path / "tiny.safetensors")
    assert "metadata key 'family' says None" in refusal(tmp_path / "tiny.safetensors")


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors", "folder.pth", "folder.safetensors"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    assert "no such file" in refusal(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello world\n" * 100, b"<html>Not Found</html>", b"PK\x03\x04", b"\0" * 64])
def test_files_of_another_kind_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"tiny{suffix}"
    path.write_bytes(content)
    assert "truncated or not" in (message := refusal(path)) or "not a whole safetensors file" in message


class Bomb:
    """An object whose unpickling makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def zipped(content: object, path: Path) -> None:
    torch.save(content, path)


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, write: Callable[[object, Path], None]) -> None:
    marker, path = tmp_path / "marker", tmp_path / "tiny.pth"
    write({"model": {}, "args": Bomb(marker)}, path)
    message = refusal(path)
    assert f"holds {os.mkdir.__module__}.mkdir beside tensors; not opened, to run no code" in message
    assert "weights_only" not in message  # torch's advice to switch the safety off
    assert not marker.exists()


@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_the_bombs_above_are_armed(tmp_path: Path, write: Callable[[object, Path], None]) -> None:
    write(Bomb(tmp_path / "marker"), tmp_path / "bomb.pth")
    if write is bare:
        pickle.loads((tmp_path / "bomb.pth").read_bytes())
    else:
        torch.load(tmp_path / "bomb.pth", weights_only=False)
    assert (tmp_path / "marker").exists()


def test_a_pickle_under_the_name_of_safetensors_is_not_unpickled(tmp_path: Path) -> None:
    bare(Bomb(tmp_path / "marker"), tmp_path / "tiny.safetensors")
    assert "not a whole safetensors file" in refusal(tmp_path / "tiny.safetensors")
    assert not (tmp_path / "marker").exists()


def test_a_family_without_shipped_weights_asks_for_a_checkpoint() -> None:
    with pytest.raises(CheckpointError, match="no weights ship with family 'tiny': give the path"):
        stitching.load("tiny")


def test_an_unknown_family_is_refused_before_any_file_is_read() -> None:
    with pytest.raises(ValueError, match="unknown family 'tinny'"):
        stitching.load("tinny", "absent.pth")


@pytest.fixture
def blank() -> SNNet:
    torch.manual_seed(1)
    return SNNet(TINY)


def anchor_weights(weights: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    prefix = f"anchors.{index}."
    return {key.removeprefix(prefix): value.clone() for key, value in weights.items() if key.startswith(prefix)}


def write_anchors(folder: Path, weights: Mapping[str, Tensor], kind: str) -> tuple[Path, Path]:
    """One file per anchor: timm state_dicts or whole SN-Nets, as pickles or safetensors."""
    files = folder / f"0.{kind.rpartition(' ')[2]}", folder / f"1.{kind.rpartition(' ')[2]}"
    for index, file in enumerate(files):
        if kind == "timm pth":
            torch.save({"model": anchor_weights(weights, index)}, file)
        elif kind == "timm safetensors":
            save_file(anchor_weights(weights, index), file, {"format": "pt"})
        elif kind == "sn-net pth":
            torch.save({"model": weights}, file)
        else:
            save(with_recipe_weights(TINY), file)
    return files


@pytest.mark.parametrize("kind", ["timm pth", "timm safetensors", "sn-net pth", "sn-net safetensors"])
def test_anchors_come_from_timm_networks_and_from_sn_nets(
    tmp_path: Path, weights: dict[str, Tensor], blank: SNNet, kind: str
) -> None:
    before = blank.layer((0, 0)).transform.weight.clone()
    load_anchors(blank, write_anchors(tmp_path, weights, kind))
    state = blank.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items() if key.startswith("anchors."))
    assert torch.equal(state["stitch_layers.0.0.transform.weight"], before)


def test_an_anchor_file_in_the_wrong_place_is_named(tmp_path: Path, weights: dict[str, Tensor], blank: SNNet) -> None:
    first, second = write_anchors(tmp_path, weights, "timm pth")
    with pytest.raises(CheckpointError, match=r"1\.pth: not a checkpoint of anchor 'tiny_a': key '.*' has shape"):
        load_anchors(blank, (second, first))


def test_every_anchor_needs_its_file(tmp_path: Path, weights: dict[str, Tensor], blank: SNNet) -> None:
    first, _ = write_anchors(tmp_path, weights, "timm pth")
    with pytest.raises(CheckpointError, match="1 anchor files for the 2 anchors of 'tiny'"):
        load_anchors(blank, [first])


def test_tensors_can_be_read_without_naming_a_family(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    save(with_recipe_weights(TINY), tmp_path / "tiny.safetensors")
    read = read_tensors(tmp_path / "tiny.safetensors")
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[key], value) for key, value in weights.items())
