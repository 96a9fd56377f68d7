"""A network without first weights is otherwise the network."""

import pytest
import torch
from small_families import SMALL_SWIN, TINY, small_v2

from stitching.families import FAMILIES, Family
from stitching.model import SNNet
from stitching.unfilled import unfilled


@pytest.mark.parametrize("family", [TINY, SMALL_SWIN, small_v2(12), FAMILIES["levit_192_256"]], ids=lambda f: f.name)
def test_everything_but_the_values_of_parameters_is_there(family: Family) -> None:
    made, quick = SNNet(family), unfilled(family)
    shapes = {key: (value.shape, value.dtype, value.requires_grad) for key, value in made.named_parameters()}
    assert {key: (value.shape, value.dtype, value.requires_grad) for key, value in quick.named_parameters()} == shapes
    buffers = dict(quick.named_buffers())
    assert buffers.keys() == dict(made.named_buffers()).keys()
    assert all(torch.equal(buffers[key], value) for key, value in made.named_buffers())


def test_no_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    unfilled(SMALL_SWIN)
    assert torch.equal(torch.get_rng_state(), before)
    SNNet(SMALL_SWIN)
    assert not torch.equal(torch.get_rng_state(), before)


def test_outside_of_it_parameters_are_filled_as_ever() -> None:
    unfilled(TINY)
    weight = torch.nn.Linear(50, 50).weight
    torch.nn.init.zeros_(weight)
    assert not weight.any()
