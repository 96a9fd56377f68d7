import json

import pytest
from small_families import TINY

import stitching
from stitching.families import FAMILIES, family


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


def test_anchor_names_go_from_small_to_large() -> None:
    assert FAMILIES["deit_ti_s_b"].anchor_names == ("deit_ti", "deit_s", "deit_b")
