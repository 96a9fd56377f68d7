import json
from pathlib import Path

import pytest
import recipe
import timm
from small_families import TINY

import stitching
from stitching.families import FAMILIES, family
from stitching.model import SNNet


def test_a_family_is_found_by_its_name() -> None:
    assert {"digits", "deit_ti_s_b", "deit_ti_s_b_all"} <= set(stitching.families())
    assert all(family(name).name == name for name in stitching.families())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown family 'deit'; known: .*deit_ti_s_b"):
        family("deit")


@pytest.mark.parametrize("name", ["deit_ti_s_b", "deit_ti_s_b_all"])
def test_released_deit_families_skip_the_norm_after_a_stitch(name: str) -> None:
    assert not FAMILIES[name].norm_after_stitch


def test_deit_images_are_prepared_as_published() -> None:
    p = FAMILIES["deit_ti_s_b"].preprocessing
    assert (p.size, p.crop, p.interpolation) == (224, 224 / 256, "bicubic")
    assert (p.mean, p.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_config_survives_json_and_tells_families_apart() -> None:
    configs = [json.dumps(each.config()) for each in (*FAMILIES.values(), TINY)]
    assert len(set(configs)) == len(configs)
    assert json.loads(configs[-1])["anchors"][1]["arguments"]["embed_dim"] == 16


@pytest.mark.parametrize(
    ("name", "tag"),
    [("swin_ti_s_b", "ms_in22k_ft_in1k"), ("deit3_s_l", "fb_in22k_ft_in1k"), ("deit_ti_s_b", "fb_in1k")],
)
def test_pretrained_anchors_are_those_of_the_articles(name: str, tag: str) -> None:
    assert {timm.get_pretrained_cfg(anchor.timm).tag for anchor in FAMILIES[name].anchors} == {tag}


def test_anchor_names_go_from_small_to_large() -> None:
    assert FAMILIES["deit_ti_s_b"].anchor_names == ("deit_ti", "deit_s", "deit_b")


DUO = """
name = "duo"
classes = 3
[[anchors]]
name = "narrow"
timm = "convnext_atto"
arguments = {depths = [1, 1, 2, 1], dims = [8, 8, 16, 16]}
[[anchors]]
name = "wide"
timm = "convnext_atto"
arguments = {depths = [1, 1, 4, 1], dims = [8, 16, 16, 24]}
[rule]
kind = "staged"
stages = [2]
[preprocessing]
size = 32
"""


def test_a_family_of_the_users_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "duo.toml"
    path.write_text(DUO)
    own = family(str(path))
    model = SNNet(own).eval()
    routes = [stitch.route(own.anchor_names) for stitch in model.stitches]
    assert routes[:3] == ["narrow[0:5]", "wide[0:7]", "narrow[0:3]>wide[3:7]"]
    images = recipe.images((2, 3, 32, 32))
    assert all(model(images, stitch).shape == (2, 3) for stitch in model.stitches)
    (tmp_path / "duo.json").write_text(json.dumps(own.config()))
    assert family(str(tmp_path / "duo.json")) == own


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("classes = 3", "classes = 0"), "classes: Input should be greater"),
        (('kind = "staged"', 'kind = "random"'), "rule.*'paired', 'staged', 'two-way'"),
        (('name = "duo"', 'name = "digits"'), "'digits' is a family that exists"),
        (("size = 32", "size = 32\nsharpness = 2"), "preprocessing.sharpness"),
        (("size = 32", 'size = 32\ninterpolation = "cubic"'), "preprocessing.interpolation: Input should be 'nearest'"),
        (("size = 32", "size = 32\nstd = [0.2, 0.2, 0.0]"), "preprocessing.std.2: Input should be greater than 0"),
        (("size = 32", "size = 32\nmean = [0.2, nan, 0.0]"), "preprocessing.mean.1: Input should be a finite"),
        (("classes = 3", "classes = "), "Invalid value"),
        (('name = "duo"', 'name = "../duo"'), "name: String should match"),
    ],
)
def test_what_is_wrong_in_a_familys_file_is_named(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = tmp_path / "duo.toml"
    path.write_text(DUO.replace(*change, 1))
    with pytest.raises(ValueError, match=rf"duo\.toml: .*{says}"):
        family(str(path))


def test_a_familys_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml: cannot be read: No such file or directory$"):
        family(str(tmp_path / "nowhere.toml"))
