"""First weights of the stitching layers, against those of the published implementation."""

from collections import Counter

import pytest
import recipe
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_families import SMALL, SMALL_SWIN, TINY, small_v2, with_recipe_weights, with_released_weights
from torch import Tensor

from stitching.families import Family
from stitching.least_squares import NormalEquations, anchor_features, initialise
from stitching.model import SNNet

STORED = recipe.arrays("lsinit_small")


def solved(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    equations = NormalEquations(x.shape[-1], y.shape[-1])
    equations.add(x, y)
    return equations.solve()


@pytest.fixture(scope="module")
def initialised() -> SNNet:
    model = with_recipe_weights(SMALL)
    for layer in model.stitch_layers.parameters():
        torch.nn.init.zeros_(layer)
    initialise(model, [STORED["x"]])
    return model


def test_every_stitching_layer_gets_the_published_weights(initialised: SNNet) -> None:
    state = initialised.state_dict()
    expected = {key.removeprefix("stitch::"): value for key, value in STORED.items() if key.startswith("stitch::")}
    assert set(expected) == {key for key in state if key.startswith("stitch_layers.")}
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, atol=1e-3, rtol=0)


def test_the_float64_solution_is_met_closely(initialised: SNNet) -> None:
    state = initialised.state_dict()
    for key, value in STORED.items():
        if key.startswith("stitch64::"):
            torch.testing.assert_close(state[key.removeprefix("stitch64::")].double(), value, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_all_71_stitches_give_the_published_logits_afterwards(initialised: SNNet) -> None:
    for stitch, expected in zip(initialised.stitches, STORED["logits_after_init_first4"], strict=True):
        torch.testing.assert_close(initialised(STORED["x"][:4], stitch), expected, atol=1e-3, rtol=0)


def test_anchors_keep_their_weights(initialised: SNNet) -> None:
    for key, value in initialised.anchors.state_dict().items():
        assert torch.equal(value, STORED[f"w::anchors.{key}"])


def test_ill_conditioned_features_get_the_truncated_solution() -> None:
    case = recipe.arrays("psinv_truncated")
    weight, bias = solved(case["front"].view(100, 40, 12), case["end"].view(100, 40, 7))
    torch.testing.assert_close(weight.double(), case["w_truncated_f64"], atol=1e-2, rtol=0)
    torch.testing.assert_close(weight, case["w"], atol=1e-2, rtol=0)
    torch.testing.assert_close(bias, case["b"], atol=1e-2, rtol=0)
    assert (weight.double() - case["w_exact_f64"]).abs().max() > 1


@pytest.mark.parametrize(("rows", "kept"), [(4000, 0.0), (400, 1.0)])
def test_more_rows_drop_more_directions(rows: int, kept: float) -> None:
    """A feature with 1e-4 of the other's spread is lost in 4000 rows and kept in 400."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 2, generator=generator) * torch.tensor([1.0, 1e-4])
    y = x[:, 1:] * 1e4
    weight, _ = solved(x.view(rows // 40, 40, 2), y.view(rows // 40, 40, 1))
    assert float(weight[0, 1]) * 1e-4 == pytest.approx(kept, abs=1e-3)


def test_random_tokens_get_the_published_solution() -> None:
    case = recipe.arrays("psinv_direct")
    weight, bias = solved(case["front_tokens"], case["end_tokens"])
    torch.testing.assert_close(weight, case["w_tokens_tokens"], atol=1e-5, rtol=0)
    torch.testing.assert_close(bias, case["b_tokens_tokens"], atol=1e-5, rtol=0)


def stored_start(name: str, prefix: str) -> dict[str, Tensor]:
    stored = recipe.arrays(name).items()
    return {key.removeprefix(prefix): value for key, value in stored if key.startswith(prefix)}


@pytest.mark.parametrize(
    ("family", "expected", "images"),
    [
        (SMALL_SWIN, stored_start("small_swin_seed20", "lsinit::"), (16, 3, 64, 64)),
        (small_v2(12), stored_start("small_v2_seed20", "lsinit_12_12::"), (64, 3, 32, 32)),
        (small_v2(24), stored_start("small_v2_seed20", "lsinit_12_24::"), (64, 3, 32, 32)),
    ],
    ids=["stages", "two ways", "two ways, unequal depths"],
)
def test_other_rules_get_the_published_weights(
    family: Family, expected: dict[str, Tensor], images: tuple[int, ...]
) -> None:
    model = with_released_weights(family)
    initialise(model, [recipe.images(images)])
    state = {key: value for key, value in model.state_dict().items() if key.startswith("stitch_layers.")}
    assert set(expected) == set(state)
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, atol=1e-3, rtol=0)


@pytest.mark.parametrize("end", ["nchw", "tokens"])
def test_pictures_are_solved_pixel_by_pixel(end: str) -> None:
    case = recipe.arrays("psinv_direct")
    there = case[f"end_{end}"]
    weight, bias = solved(case["front_nchw"].movedim(1, -1), there.movedim(1, -1) if end == "nchw" else there)
    torch.testing.assert_close(weight, case[f"w_nchw_{end}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(bias, case[f"b_nchw_{end}"], atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_linear_map_is_found_again(width_in: int, width_out: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 2, width_in, generator=generator)
    weight, bias = torch.randn(width_out, width_in, generator=generator), torch.randn(width_out, generator=generator)
    found_weight, found_bias = solved(x, x @ weight.T + bias)
    torch.testing.assert_close(found_weight, weight, atol=1e-4, rtol=0)
    torch.testing.assert_close(found_bias, bias, atol=1e-4, rtol=0)


def test_batches_one_by_one_are_one_large_batch() -> None:
    model, again = with_recipe_weights(TINY), with_recipe_weights(TINY)
    images = recipe.images((12, 3, 32, 32))
    initialise(model, [images])
    initialise(again, iter([images[:5], images[5:6], images[6:]]))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, atol=1e-5, rtol=0)


def test_a_layer_gets_the_mean_over_its_positions() -> None:
    model, images = with_recipe_weights(TINY), recipe.images((12, 3, 32, 32))
    front, end = anchor_features(model, 0, images), anchor_features(model, 1, images)
    places = [(1, 0), (1, 1), (2, 0), (2, 1)]
    expected = torch.stack([solved(front[before], end[after])[0] for before, after in places]).mean(0)
    initialise(model, [images])
    torch.testing.assert_close(model.layer((0, 0)).transform.weight, expected, atol=1e-6, rtol=0)


def test_joins_name_every_position_once() -> None:
    with torch.device("meta"):
        places = SNNet(SMALL).joins
    assert len(places) == 2 * 34
    uses = Counter(place.layer for place in places)
    assert uses == {(pair, layer): 3 + (layer == 0) for pair in range(2) for layer in range(11)}


@pytest.mark.parametrize("training", [True, False])
def test_features_are_taken_in_eval_mode_and_the_mode_is_put_back(training: bool) -> None:
    torch.manual_seed(0)
    model = SNNet(TINY, drop_path=(0.9, 0.9)).train(training)
    twin = SNNet(TINY)
    twin.load_state_dict(model.state_dict())
    images = recipe.images((8, 3, 32, 32))
    initialise(model, [images])
    initialise(twin.eval(), [images])
    assert model.training is training
    assert torch.equal(model.layer((0, 0)).transform.weight, twin.layer((0, 0)).transform.weight)


def test_without_a_batch_there_is_nothing_to_solve() -> None:
    model = with_recipe_weights(TINY)
    before = model.layer((0, 0)).transform.weight.clone()
    with pytest.raises(ValueError, match="at least one batch"):
        initialise(model, [])
    assert torch.equal(model.layer((0, 0)).transform.weight, before)
