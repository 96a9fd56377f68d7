"""Damaged checkpoints: whatever the damage, the answer is CheckpointError or a network, and never anything else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_families import TINY, registered, with_recipe_weights

import stitching
from stitching.checkpoint import CheckpointError, save
from stitching.model import SNNet

NAMES = ["tiny.safetensors", "zipped.pth", "legacy.pth"]
# torch says so when the byte that holds a pickle's protocol was changed.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")
damage = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """The content of undamaged checkpoints by name."""
    folder = tmp_path_factory.mktemp("whole")
    model = with_recipe_weights(TINY)
    save(model, folder / NAMES[0])
    torch.save({"model": model.state_dict()}, folder / NAMES[1])
    torch.save({"model": model.state_dict()}, folder / NAMES[2], _use_new_zipfile_serialization=False)
    with registered(TINY):
        yield {name: (folder / name).read_bytes() for name in NAMES}


def outcome(path: Path, content: bytes) -> SNNet | CheckpointError:
    path.write_bytes(content)
    try:
        return stitching.load("tiny", path)
    except CheckpointError as error:
        return error


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_file_is_a_network(tmp_path: Path, whole: dict[str, bytes], name: str) -> None:
    assert isinstance(outcome(tmp_path / name, whole[name]), SNNet)


@pytest.mark.parametrize("name", NAMES)
@damage
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_is_refused(tmp_path: Path, whole: dict[str, bytes], name: str, share: float) -> None:
    content = whole[name][: int(share * len(whole[name]))]
    assert isinstance(outcome(tmp_path / name, content), CheckpointError)


@pytest.mark.parametrize("name", NAMES)
@damage
@given(
    changes=st.lists(st.tuples(st.integers(0, 400) | st.integers(-400, -1), st.integers(0, 255)), max_size=4),
    anywhere=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_a_file_that_was_changed_is_refused_or_still_a_network(
    tmp_path: Path,
    whole: dict[str, bytes],
    name: str,
    changes: list[tuple[int, int]],
    anywhere: list[tuple[float, int]],
) -> None:
    content = bytearray(whole[name])
    for place, value in [*changes, *((int(share * len(content)), value) for share, value in anywhere)]:
        content[place] = value
    result = outcome(tmp_path / name, bytes(content))
    if isinstance(result, SNNet):
        assert all(bool(torch.isfinite(value).all()) for value in result.state_dict().values())


def test_the_end_of_a_legacy_pickle_is_missing(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Cut inside the number that tells a string's length, which the unpickler reads with struct."""
    content = whole["legacy.pth"]
    cut = content.index(b"X", 200) + 3
    assert isinstance(outcome(tmp_path / "legacy.pth", content[:cut]), CheckpointError)
