"""Which number format is taken, and what becomes of a model in it."""

from collections.abc import Iterator, Sequence
from itertools import count

import pytest
import torch

import stitching
from server.dtype import FLOAT32, Choice, Seconds, Setting, Variant, choose, convert, fastest, install, measured
from stitching import SNNet
from stitching.digits import Digits
from stitching.families import AnchorSpec, Family, Preprocessing, family
from stitching.rules import Staged

CPU = torch.device("cpu")
BOTH = (torch.float16, torch.bfloat16)
PLAIN, FUSED = Variant(torch.bfloat16, plain_attention=True), Variant(torch.bfloat16)


def vit(name: str, width: int) -> AnchorSpec:
    shape = {"img_size": 32, "patch_size": 16, "embed_dim": width, "depth": 2, "num_heads": 2}
    return AnchorSpec(name, "vit_tiny_patch16_224", shape)


TINY = Family("tiny", (vit("a", 8), vit("b", 16)), classes=3, preprocessing=Preprocessing(size=32))
LEVIT = Family(
    "levit",
    tuple(AnchorSpec(name, "levit_128s", {"img_size": 64}) for name in "ab"),
    classes=3,
    rule=Staged((0, 1)),
    preprocessing=Preprocessing(size=64),
)


@pytest.fixture
def tiny() -> SNNet:
    torch.manual_seed(0)
    return SNNet(TINY).eval()


def never(_: Sequence[Variant]) -> Seconds:
    raise AssertionError("nothing is to be measured")


@pytest.mark.parametrize(
    ("setting", "variant"),
    [
        ("float32", FLOAT32),
        ("bfloat16", PLAIN),
        ("float16", Variant(torch.float16, plain_attention=True)),
    ],
)
def test_what_is_set_is_taken_unmeasured(setting: Setting, variant: Variant) -> None:
    assert choose(setting, CPU, BOTH, never) == Choice(variant, "as set")


def test_a_processor_without_16_bit_products_keeps_float32_unmeasured() -> None:
    assert choose("auto", CPU, (), never).variant == FLOAT32


def test_a_gpu_takes_the_most_exact_format_with_its_own_attention() -> None:
    gpu = torch.device("cuda")
    assert choose("auto", gpu, BOTH, never).variant == Variant(torch.float16)
    assert choose("auto", gpu, (), never).variant == FLOAT32
    assert choose("bfloat16", gpu, BOTH, never).variant == FUSED


def test_a_processor_is_measured_in_all_its_formats_and_both_kinds_of_attention() -> None:
    asked: list[Variant] = []

    def measure(variants: Sequence[Variant]) -> Seconds:
        asked.extend(variants)
        return {variant: (1.0, 8.0 if variant == FLOAT32 else 4.0) for variant in variants}

    assert choose("auto", CPU, BOTH, measure).ratio == 2.0
    assert set(asked) == {FLOAT32, *(Variant(dtype, plain) for dtype in BOTH for plain in (True, False))}


@pytest.mark.parametrize(
    ("alone", "batch", "variant"),
    [
        ({PLAIN: 0.9, FUSED: 0.8}, {PLAIN: 4.0, FUSED: 4.5}, PLAIN),
        ({PLAIN: 0.9, FUSED: 0.8}, {PLAIN: 4.5, FUSED: 4.0}, FUSED),
        ({PLAIN: 1.1, FUSED: 0.9}, {PLAIN: 4.0, FUSED: 6.0}, FUSED),
        ({PLAIN: 1.7, FUSED: 1.6}, {PLAIN: 4.0, FUSED: 4.0}, FLOAT32),
        ({PLAIN: 0.9, FUSED: 0.9}, {PLAIN: 7.8, FUSED: 7.9}, FLOAT32),
        ({PLAIN: 9.0, FUSED: 9.0}, {PLAIN: 60.0, FUSED: 60.0}, FLOAT32),
    ],
    ids=["plain", "fused", "not slower alone", "slower alone", "gains too little", "slower"],
)
def test_fewer_bits_must_gain_for_a_batch_and_lose_nothing_alone(
    alone: dict[Variant, float], batch: dict[Variant, float], variant: Variant
) -> None:
    choice = fastest({FLOAT32: (1.0, 8.0)} | {v: (alone[v], batch[v]) for v in (PLAIN, FUSED)})
    assert choice.variant == variant
    assert choice.ratio == (1.0 if variant == FLOAT32 else pytest.approx(8.0 / batch[variant]))
    assert "times as fast as float32" in choice.reason


def test_measuring_counts_each_width_by_its_blocks_and_leaves_the_model_as_it_was(tiny: SNNet) -> None:
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    ticks: Iterator[int] = count()
    seconds = measured(tiny, [FLOAT32, PLAIN], lambda: float(next(ticks)))
    assert seconds == {FLOAT32: [4.0, 4.0], PLAIN: [4.0, 4.0]}  # a tick a block, 2 blocks of 2 widths
    assert all(torch.equal(before[name], value) for name, value in tiny.state_dict().items())
    assert all(part.fused_attn for part in tiny.modules() if hasattr(part, "fused_attn"))


def test_a_converted_model_has_one_copy_of_its_weights_and_float32_logits(tiny: SNNet) -> None:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mixed = [tiny.stitches[0], tiny.stitches[4], tiny.stitches[1], tiny.stitches[4]]
    with torch.inference_mode():
        exact = tiny(images, mixed)
        convert(tiny, PLAIN)
        narrow = tiny(images.bfloat16(), mixed)
    assert narrow.dtype == torch.float32
    assert (narrow - exact).norm() / exact.norm() < 0.03
    wide = {name for name, value in tiny.named_parameters() if value.dtype == torch.float32}
    assert wide == {f"anchors.{i}.head.{part}" for i in range(2) for part in ("weight", "bias")}
    assert not any(part.fused_attn for part in tiny.modules() if hasattr(part, "fused_attn"))


def test_biases_that_levit_kept_in_float32_do_not_stay() -> None:
    torch.manual_seed(0)
    model = SNNet(LEVIT).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        exact = model(image, model.stitches[-1])
        convert(model, PLAIN)
        narrow = model(image.bfloat16(), model.stitches[-1])
    assert (narrow - exact).norm() / exact.norm() < 0.05
    assert all(value.dtype == torch.float32 for name, value in model.named_buffers() if "running" in name)


def exceeding(model: SNNet, what: str) -> SNNet:
    """The model with a weight, or with features, that float16 has no number for."""
    with torch.no_grad():
        for block in model.anchors[1].blocks:  # type: ignore[union-attr]
            block.mlp.fc2.bias.fill_(50_000 if what == "features" else 70_000)
    return model


@pytest.mark.parametrize("what", ["weights", "features"])
@pytest.mark.parametrize(("formats", "dtype"), [(BOTH, torch.bfloat16), (BOTH[:1], torch.float32)])
def test_float16_gives_way_where_it_is_exceeded(
    tiny: SNNet, what: str, formats: Sequence[torch.dtype], dtype: torch.dtype
) -> None:
    choice = install(exceeding(tiny, what), CPU, Choice(Variant(torch.float16), "measured"), formats)
    assert choice == Choice(Variant(dtype), "weights or features exceed float16")
    images = torch.randn(2, 3, 32, 32).to(dtype)
    assert tiny(images, tiny.stitches[1]).isfinite().all()


@pytest.mark.parametrize("what", ["weights", "features"])
def test_float16_that_was_asked_for_is_refused_where_it_is_exceeded(tiny: SNNet, what: str) -> None:
    with pytest.raises(ValueError, match="dtype: this family exceeds float16"):
        install(exceeding(tiny, what), CPU, choose("float16", CPU, (), never), ())


def test_float32_is_left_to_the_last_bit(tiny: SNNet) -> None:
    images = torch.randn(2, 3, 32, 32)
    before = tiny(images, tiny.stitches[3])
    assert install(tiny, CPU, choose("float32", CPU, BOTH, never), BOTH).variant == FLOAT32
    assert torch.equal(tiny(images, tiny.stitches[3]), before)


def test_float16_gives_the_classes_of_float32_on_the_digits() -> None:
    p = family("digits").preprocessing
    exact, narrow = stitching.load("digits"), stitching.load("digits")
    convert(narrow, Variant(torch.float16))
    least_sure = exact.stitches[0]  # its classes are the closest together
    with torch.inference_mode():
        (images, _), *_ = Digits(p.mean, p.std, held_out=400).held_out("test", 400)
        same = narrow(images.half(), least_sure).argmax(1) == exact(images, least_sure).argmax(1)
    assert same.float().mean() >= 0.995


def test_the_names_of_the_formats_are_those_of_the_setting() -> None:
    assert [variant.name for variant in (FLOAT32, PLAIN)] == ["float32", "bfloat16"]
