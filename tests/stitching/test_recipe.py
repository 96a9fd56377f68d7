"""The tests' own weights, against the values they were published with."""

import pytest
import recipe
import torch

CHECKS = recipe.stored("recipe_check_seed20")


@pytest.mark.parametrize("key", CHECKS["deit"])
def test_weights_are_the_published_ones(key: str) -> None:
    tensor = recipe.weight(key, CHECKS["deit"][key]["shape"])
    assert tensor.flatten()[:5].tolist() == CHECKS["deit"][key]["first5"]
    assert tensor.double().sum().item() == pytest.approx(CHECKS["deit"][key]["sum_f64"], abs=1e-9)


def test_every_stored_anchor_array_follows_the_rule() -> None:
    arrays = recipe.arrays("lsinit_small")
    anchors = {key.removeprefix("w::"): value for key, value in arrays.items() if key.startswith("w::")}
    assert len(anchors) == 456
    assert all(torch.equal(value, recipe.weight(key, value.shape)) for key, value in anchors.items())


def test_the_input_is_the_published_one() -> None:
    assert recipe.images((2, 3, 224, 224)).flatten()[:5].tolist() == CHECKS["input_seed20_first5"]
