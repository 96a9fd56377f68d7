"""What becomes of pixels; the refusals are in test_images_refusals.py."""

import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from timm.data import create_transform

from lookup_tables.table import Preprocessing
from server import jpeg
from server.errors import BadImage
from server.images import Limits
from server.pixels import decode, from_pixels

SMALL = Preprocessing(size=8, crop=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
DEIT = Preprocessing(size=224, crop=0.9, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LIMITS = Limits()
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 10_000 + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    return noise(6, 6).resize((width, height), Image.Resampling.BICUBIC)


def plain(colour: Any, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (8, 8), colour)


def reference(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    transform = create_transform(
        preprocessing.size,
        is_training=False,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop,
        normalize=False,
    )
    pixels: torch.Tensor = transform(image.convert("RGB"))
    return pixels


def difference(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def colours(body: bytes, preprocessing: Preprocessing = SMALL) -> set[tuple[int, ...]]:
    """The distinct colours of a decoded picture."""
    pixels = decode(body, preprocessing, LIMITS).flatten(1).T.tolist()
    return {tuple(pixel) for pixel in pixels}


@pytest.mark.parametrize(
    "size",
    [
        *((500, 375), (375, 500), (501, 373), (223, 225), (225, 224), (224, 224), (247, 249), (248, 248)),
        *((249, 600), (331, 1023), (1023, 331), (16, 16), (1, 3), (3, 1), (7, 25), (1, 1)),
    ],
)
@pytest.mark.parametrize("crop", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_timms_evaluation_transform(size: tuple[int, int], crop: float, interpolation: Any) -> None:
    preprocessing = Preprocessing(224, crop, interpolation, DEIT.mean, DEIT.std)
    image = noise(*size)
    pixels = decode(encode(image, "PNG"), preprocessing, LIMITS)
    assert (pixels.dtype, pixels.shape, pixels.device.type) == (torch.uint8, (3, 224, 224), "cpu")
    assert pixels.is_contiguous()
    assert torch.equal(pixels, reference(image, preprocessing))


@pytest.mark.parametrize("size", [(300, 1201), (2000, 300), (7, 900), (900, 7), (33, 3001), (1, 400), (400, 1)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_of_very_long_pictures_are_timms_up_to_rounding(size: tuple[int, int], interpolation: Any) -> None:
    preprocessing = Preprocessing(224, 0.9, interpolation, DEIT.mean, DEIT.std)
    image = smooth(*size)
    pixels = decode(encode(image, "PNG"), preprocessing, LIMITS)
    assert difference(pixels, reference(image, preprocessing)) <= 1


@pytest.mark.parametrize("size", [(2_000_001, 1), (1, 2_000_001)])
def test_of_a_very_long_picture_only_the_middle_is_scaled(size: tuple[int, int]) -> None:
    # As a whole it would be 248 x 496,000,248 pixels: no memory holds that.
    image = Image.new("L", size, 10)
    image.paste(200, (size[0] // 2 - 5, size[1] // 2 - 5, size[0] // 2 + 6, size[1] // 2 + 6))
    assert colours(encode(image, "PNG"), DEIT) == {(200, 200, 200)}


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_jpeg(options: dict[str, Any]) -> None:
    body = encode(smooth(61, 47), "JPEG", **options)
    with Image.open(io.BytesIO(body)) as image:
        assert torch.equal(decode(body, SMALL, LIMITS, exact=True), reference(image, SMALL))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1200, 901), (2999, 4001), (250, 251), (40, 30), (7, 26)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_jpeg_is_decoded_fast_within_some_grey_levels(
    size: tuple[int, int], options: dict[str, Any], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encode(smooth(*size), "JPEG", quality=90, exif=exif, **options)
    fast, exact = (decode(body, DEIT, LIMITS, exact=exact) for exact in (False, True))
    assert fast.is_contiguous()
    assert (fast.dtype, fast.shape) == (exact.dtype, exact.shape)
    off = (fast.int() - exact.int()).abs()
    assert off.max() <= 4
    assert off.float().mean() < 0.6


@pytest.mark.parametrize(
    ("size", "shape"), [((4000, 3000), (750, 1000, 3)), ((1500, 1000), (625, 938, 3)), ((700, 510), (510, 700, 3))]
)
def test_a_large_jpeg_is_decoded_no_larger_than_it_must(size: tuple[int, int], shape: tuple[int, ...]) -> None:
    body = encode(smooth(*size), "JPEG")
    assert jpeg.header(body) == jpeg.Header(size, "RGB")
    pixels = jpeg.read(body, "RGB", 512)
    assert pixels is not None
    assert pixels.shape == shape


def test_what_is_no_sound_jpeg_of_one_or_three_colours_is_left_to_others() -> None:
    whole = encode(smooth(61, 47), "JPEG")
    gray = encode(smooth(61, 47).convert("L"), "JPEG")
    assert jpeg.header(gray) == jpeg.Header((61, 47), "GRAY")
    for body in (b"no image at all", whole[:20], encode(smooth(61, 47).convert("CMYK"), "JPEG")):
        assert jpeg.header(body) is None
    assert jpeg.read(whole[: len(whole) // 2], "RGB", 8) is None


def test_gray_jpeg() -> None:
    assert colours(encode(plain(77, "L"), "JPEG")) == {(77, 77, 77)}


def test_cmyk_jpeg_is_read_by_adobes_inverted_convention() -> None:
    image = plain((0, 255, 255, 0), "CMYK")  # no cyan, all magenta and yellow: red
    body = encode(image, "JPEG", quality=100)
    assert b"Adobe" in body
    ((red, green, blue),) = colours(body)
    assert red > 250
    assert green < 5
    assert blue < 5


@pytest.mark.parametrize(
    ("orientation", "corners"),
    [
        (1, (RED, GREEN, BLUE)),
        (2, (GREEN, RED, (0, 0, 0))),
        (3, ((0, 0, 0), BLUE, GREEN)),
        (4, (BLUE, (0, 0, 0), RED)),
        (5, (RED, BLUE, GREEN)),
        (6, (BLUE, RED, (0, 0, 0))),
        (7, ((0, 0, 0), GREEN, BLUE)),
        (8, (GREEN, (0, 0, 0), RED)),
        (0, (RED, GREEN, BLUE)),
        (9, (RED, GREEN, BLUE)),
    ],
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_an_exif_orientation_is_applied(
    file_format: str, orientation: int, corners: tuple[tuple[int, int, int], ...]
) -> None:
    """`corners`: upper left, upper right and lower left of the upright picture."""
    image = Image.new("RGB", (64, 64))
    image.paste(RED, (0, 0, 32, 32))
    image.paste(GREEN, (32, 0, 64, 32))
    image.paste(BLUE, (0, 32, 32, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encode(image, file_format, exif=exif), SMALL, LIMITS)
    for (y, x), colour in zip([(1, 1), (1, 6), (6, 1)], corners, strict=True):
        assert (pixels[:, y, x].int() - torch.tensor(colour)).abs().max() < 40


@pytest.mark.parametrize(
    "exif",
    [
        *(b"", b"II*\x00", b"MM\x00*\xff\xff\xff\xff", b"II*\x00\x08\x00\x00\x00\xff\xff", b"not a TIFF header at all"),
        b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01",
    ],
)
def test_a_broken_exif_block_leaves_the_picture_as_it_is(exif: bytes) -> None:
    image = smooth(20, 30)
    body = encode(image, "PNG", exif=b"Exif\x00\x00" + exif)
    assert torch.equal(decode(body, SMALL, LIMITS), reference(image, SMALL))
    assert decode(encode(image, "JPEG", exif=b"Exif\x00\x00" + exif), SMALL, LIMITS).shape == (3, 8, 8)


def test_a_text_under_the_name_of_the_exif_block_is_just_text() -> None:
    text = PngInfo()
    text.add_itxt("exif", "Exif")
    assert colours(encode(plain(RED), "PNG", pnginfo=text)) == {RED}


def test_alpha_is_dropped_as_in_the_loaders_of_data_sets() -> None:
    assert colours(encode(plain((255, 0, 0, 0), "RGBA"), "PNG")) == {RED}
    assert colours(encode(plain((70, 10), "LA"), "PNG")) == {(70, 70, 70)}
    assert colours(encode(plain((0, 0, 255, 128), "RGBA"), "WEBP", lossless=True)) == {BLUE}


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(256))])
def test_palettes(transparency: object) -> None:
    image = plain(0, "P")
    image.putpalette([*GREEN, *BLUE, *RED])
    options = {} if transparency is None else {"transparency": transparency}
    assert colours(encode(image, "PNG", **options)) == {GREEN}


@pytest.mark.parametrize(("mode", "colour", "transparency"), [("RGB", RED, RED), ("L", 9, 9), ("1", 1, 255)])
def test_a_transparent_colour_is_a_colour(mode: str, colour: Any, transparency: object) -> None:
    body = encode(plain(colour, mode), "PNG", transparency=transparency)
    assert colours(body) == {RED if mode == "RGB" else (9, 9, 9) if mode == "L" else (255, 255, 255)}


@pytest.mark.parametrize(("deep", "byte"), [(0, 0), (128, 0), (129, 1), (257 * 77, 77), (65407, 255), (65535, 255)])
def test_16_bit_gray_is_scaled_to_8_bits(deep: int, byte: int) -> None:
    image = Image.fromarray(np.full((8, 8), deep, dtype=np.uint16))
    assert colours(encode(image, "PNG")) == {(byte, byte, byte)}


def test_one_bit_png_is_black_and_white() -> None:
    assert colours(encode(plain(1, "1"), "PNG")) == {(255, 255, 255)}
    assert colours(encode(plain(0, "1"), "PNG")) == {(0, 0, 0)}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp(mode: str) -> None:
    image = noise(9, 8).convert(mode)
    assert torch.equal(decode(encode(image, "BMP"), SMALL, LIMITS), reference(image, SMALL))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(file_format: str) -> None:
    options = {} if file_format == "GIF" else {"lossless": True}
    body = encode(plain(RED), file_format, save_all=True, append_images=[plain(GREEN), plain(BLUE)], **options)
    assert colours(body) == {RED}


def test_bytes_after_the_image_do_no_harm() -> None:
    assert colours(encode(plain(RED), "PNG") + random.Random(0).randbytes(1000)) == {RED}


def test_a_body_is_told_by_its_first_bytes_alone() -> None:
    assert colours(encode(plain(RED), "PNG")) == colours(encode(plain(RED), "BMP")) == {RED}


IMAGENET = Preprocessing(16, 0.9, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EVERY_LEVEL = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (3, 1, 1))


def normalised(pixels: Any, preprocessing: Preprocessing, precision: Any) -> Any:
    mean, std = (np.array(of, precision).reshape(3, 1, 1) for of in (preprocessing.mean, preprocessing.std))
    return ((pixels.astype(precision) / precision(255) - mean) / std).astype(np.float32)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("preprocessing", [SMALL, IMAGENET])
def test_pixels_come_back_from_their_normalised_values(preprocessing: Preprocessing, precision: Any) -> None:
    back = from_pixels(normalised(EVERY_LEVEL, preprocessing, precision), preprocessing)
    assert back.dtype == torch.uint8
    assert np.array_equal(back.numpy(), EVERY_LEVEL)
    assert np.array_equal(from_pixels(EVERY_LEVEL, preprocessing).numpy(), EVERY_LEVEL)


def test_normalised_values_between_pixels_become_the_nearest_and_overshoot_is_clipped() -> None:
    between = normalised(np.full((3, 4, 4), 100.4), IMAGENET, np.float64)
    between[0, 0, 0] = normalised(np.full((3, 1, 1), 262.0), IMAGENET, np.float64)[0, 0, 0]
    between[0, 0, 1] = normalised(np.full((3, 1, 1), -9.0), IMAGENET, np.float64)[0, 0, 0]
    back = from_pixels(between, IMAGENET)
    assert back[0, 0].tolist() == [255, 0, 100, 100]
    assert set(back[1:].flatten().tolist()) == {100}


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, float("inf"), float("nan"), 128.0])
def test_normalised_values_of_no_pixel_are_refused(value: float) -> None:
    values = np.zeros((3, 4, 4), np.float32)
    values[1, 2, 3] = value
    with pytest.raises(BadImage, match="then divide by"):
        from_pixels(values, IMAGENET)
