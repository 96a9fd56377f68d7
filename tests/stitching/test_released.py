"""Released checkpoints of every family: their names, and the published answers of the networks they fill."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import recipe
import torch
from small_families import SMALL_SWIN, small_v2, with_released_weights

import stitching
from stitching.checkpoint import CheckpointError, load_anchors, read_tensors
from stitching.families import FAMILIES, AnchorSpec, Family, Preprocessing
from stitching.flops import flops, params
from stitching.model import SNNet
from stitching.released import adapted
from stitching.unfilled import unfilled

PAIR_OF_INPUTS = recipe.images((2, 3, 224, 224))

# family, the fixtures' name for it, how the file is laid out
RELEASED = [
    ("resnet18_50", "resnet18_50", "state_dict"),
    ("resnet18_50", "resnet18_50_splitbn", "state_dict"),
    ("resnet18_swin_ti", "resnet18_swin_ti", "state_dict"),
    ("levit_192_256", "levit_192_256", "model"),
    ("swin_ti_s_b", "swin", "model"),
]


@pytest.mark.parametrize(("name", "keys", "layout"), RELEASED)
@torch.inference_mode()
def test_a_released_checkpoint_gives_the_published_logits(name: str, keys: str, layout: str, tmp_path: Path) -> None:
    path = tmp_path / "released.pth"
    prefix = "module." if layout == "state_dict" else ""
    state = {prefix + key: value for key, value in recipe.state(recipe.stored(f"keys_{keys}")).items()}
    torch.save({layout: state, "epoch": 49}, path)
    model = stitching.load(name, path)
    path.unlink()
    logits = recipe.arrays(f"logits_{keys.removesuffix('_splitbn')}_seed20")["logits"]
    for stitch, expected in zip(model.stitches, logits, strict=True):
        row = slice(stitch.id % 2, stitch.id % 2 + 1)
        torch.testing.assert_close(model(PAIR_OF_INPUTS[row], stitch), expected[row], atol=1e-4, rtol=0)
    ids, rows = [0, 1, 5, 5, 7], [0, 1, 1, 0, 1]
    mixed = model(PAIR_OF_INPUTS[rows], [model.stitches[i] for i in ids])
    torch.testing.assert_close(mixed, logits[ids, rows], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", [SMALL_SWIN, small_v2(12), small_v2(24)], ids=lambda family: family.name)
@torch.inference_mode()
def test_small_networks_of_a_released_layout_give_the_published_logits(family: Family) -> None:
    model = with_released_weights(family)
    name = "small_swin_seed20" if family is SMALL_SWIN else "small_v2_seed20"
    stored = recipe.arrays(name)["logits" if family is SMALL_SWIN else family.name.replace("small_v2", "logits")]
    size = family.preprocessing.size
    images = recipe.images((2, 3, size, size))
    assert len(model.stitches) == len(stored)
    for stitch, expected in zip(model.stitches, stored, strict=True):
        torch.testing.assert_close(model(images, stitch), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "keys"), [("deit3_s_b", "snnetv2_s_b"), ("deit3_s_l", "snnetv2_s_l"), ("deit3_b_l", "snnetv2_b_l")]
)
def test_released_names_of_v2_are_the_models(name: str, keys: str) -> None:
    with torch.device("meta"):
        model = SNNet(FAMILIES[name])
        state = {key: torch.empty(shape) for key, shape in recipe.stored(f"keys_{keys}").items()}
        named = adapted(model.anchors, state)
    assert {k: v.shape for k, v in named.items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert len(model.stitches) == 135
    assert [stitch.id for stitch in model.stitches if not stitch.is_whole] == [13]


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("swin_ti_s_b", "swin"),
        ("levit_192_256", "levit_192_256"),
        ("resnet18_50", "resnet18_50"),
        ("resnet18_swin_ti", "resnet18_swin_ti"),
        ("deit3_s_l", "snnetv2_s_l"),
    ],
)
def test_flops_and_parameters_are_the_published_integers(name: str, results: str) -> None:
    model = unfilled(FAMILIES[name]).to("meta")
    published = recipe.stored(f"results_{results}")
    stitches = [model.stitches[row["id"]] for row in published]
    assert len(stitches) == sum(stitch.is_whole for stitch in model.stitches)
    assert flops(model, stitches) == [row["flops"] for row in published]
    for row, stitch in zip(published, stitches, strict=True):
        assert params(model, stitch) == row.get("params", params(model, stitch))


def refusal(path: Path, state: object) -> str:
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        stitching.load("resnet18_50" if "resnet" in path.name else "deit3_s_b", path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_corrections_that_do_not_fit_are_named(tmp_path: Path) -> None:
    layer = "stitch_layers.0.3.transform"
    w, a, b = torch.zeros(768, 384), torch.zeros(64, 384), torch.zeros(768, 64)
    path = tmp_path / "v2.pth"
    assert f"'{layer}.lora_A' is there without" in refusal(path, {f"{layer}.weight": w, f"{layer}.lora_A": a})
    whole = {f"{layer}.weight": w, f"{layer}.lora_A": a, f"{layer}.lora_B": b}
    assert "no common rank" in refusal(path, whole | {f"{layer}.lora_B": b[:, :3]})
    assert "does not have the shape (768, 384)" in refusal(path, whole | {f"{layer}.lora_A": a[:, :3]})
    assert "two names of one tensor" in refusal(
        path, {"anchors.0.blocks.0.gamma_1": torch.ones(384), "anchors.0.blocks.0.ls1.gamma": torch.ones(384)}
    )


def test_keys_of_anchors_that_the_family_does_not_have_are_unexpected(tmp_path: Path) -> None:
    state = recipe.state(recipe.stored("keys_resnet18_50")) | {"anchors.2.fc.bias": torch.zeros(3)}
    assert "'anchors.2.fc.bias' is unexpected" in refusal(tmp_path / "resnet.pth", {"state_dict": state})


def test_an_original_anchors_file_fills_an_anchor(tmp_path: Path) -> None:
    files = []
    for index in range(2):
        keys = recipe.stored("keys_levit_192_256")
        prefix = f"anchors.{index}."
        anchor = {key.removeprefix(prefix): shape for key, shape in keys.items() if key.startswith(prefix)}
        files.append(tmp_path / f"{index}.pth")
        torch.save({"model": recipe.state(anchor)}, files[-1])
    model = SNNet(FAMILIES["levit_192_256"])
    load_anchors(model, files)
    expected = recipe.weight("blocks.2.m.qkv.c.weight", (384, 192))
    assert torch.equal(model.anchors[0].state_dict()["stages.0.blocks.1.attn.qkv.linear.weight"], expected)


def test_anchors_that_timm_has_no_weights_for_are_named() -> None:
    spec = AnchorSpec("rms", "convnext_atto_rms", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)})
    model = SNNet(Family("duo", (spec, spec), classes=1000, preprocessing=Preprocessing(size=32)))
    with pytest.raises(CheckpointError, match=r"'rms': timm's pretrained 'convnext_atto_rms' cannot .* --anchors"):
        load_anchors(model, ())


def test_swins_training_settings_beside_the_weights_are_read_without_their_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ModuleType("yacs.config")

    class CfgNode(dict[str, object]):
        """As yacs has it: a dict with attributes."""

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    library.CfgNode = CfgNode  # type: ignore[attr-defined]
    settings = CfgNode(AMP=True, DATA=CfgNode(BATCH_SIZE=128))
    settings.__dict__ |= {"__immutable__": True, "__deprecated_keys__": {"OLD"}}
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "yacs", ModuleType("yacs"))
        patched.setitem(sys.modules, "yacs.config", library)
        torch.save({"model": {"a.weight": torch.ones(2)}, "config": settings, "epoch": 49}, tmp_path / "swin.pth")
    assert "yacs.config" not in sys.modules
    assert read_tensors(tmp_path / "swin.pth")["a.weight"].tolist() == [1, 1]
