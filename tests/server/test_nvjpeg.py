"""The GPU's decoder: with libjpeg in nvJPEG's place everywhere, and as it is where there is a CUDA device."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Barrier, Lock
from typing import Any

import numpy as np
import pytest
import torch
from no_nvjpeg import DEIT, by_libjpeg, encode, on_cpu, smooth
from PIL import Image

from lookup_tables.table import LookupTable, Preprocessing, folder
from server import nvjpeg
from server.engine import Engine
from server.errors import BadImage, ServeError, TooLarge
from server.images import Limits
from server.nvjpeg import LANES, NvJpeg, smaller
from server.pixels import decode

DIGITS = Preprocessing(size=64, crop=1.0, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LIMITS = Limits()
on_a_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture(params=["libjpeg", pytest.param("nvjpeg", marks=on_a_gpu)])
def decoders(request: pytest.FixtureRequest) -> Any:
    """Makes a decoder for a preprocessing."""
    if request.param == "libjpeg":
        return lambda preprocessing: on_cpu(preprocessing=preprocessing)
    return partial(nvjpeg.on_gpu, torch.device("cuda"))


def apart(body: bytes, decoder: NvJpeg, preprocessing: Preprocessing = DEIT) -> float:
    """Grey levels in the mean from what libjpeg-turbo alone gives, in a picture that the decoder did decode."""
    decoded = decoder.files["decoded"]
    found = decode(body, preprocessing, LIMITS, other=decoder)
    assert decoder.files["decoded"] == decoded + 1, decoder.failure
    assert (found.dtype, found.shape, found.device.type) == (torch.uint8, (3, *[preprocessing.size] * 2), "cpu")
    assert found.is_contiguous()
    return float((found.int() - decode(body, preprocessing, LIMITS).int()).abs().float().mean())


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (501, 373), (250, 251), (997, 1003), (2999, 2001), (700, 2700)]
)
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("preprocessing", [DEIT, DIGITS])
def test_pixels_are_libjpegs_within_some_grey_levels(
    decoders: Any, size: tuple[int, int], options: dict[str, Any], preprocessing: Preprocessing
) -> None:
    assert apart(encode(smooth(*size), **options), decoders(preprocessing), preprocessing) < 1.5


@pytest.mark.parametrize("size", [(500, 375), (333, 999), (1999, 1501)])
def test_gray_is_gray(decoders: Any, size: tuple[int, int]) -> None:
    decoder, body = decoders(DEIT), encode(smooth(*size).convert("L"))
    assert apart(body, decoder) < 0.7
    found = decode(body, DEIT, LIMITS, other=decoder)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_brought_upright(decoders: Any, orientation: int) -> None:
    body = encode(smooth(640, 427), exif=turned(orientation))
    decoder = decoders(DEIT)
    assert apart(body, decoder) < 1.5
    if orientation in range(2, 9):
        plain = decode(encode(smooth(640, 427)), DEIT, LIMITS, other=decoder)
        assert not torch.equal(decode(body, DEIT, LIMITS, other=decoder), plain)


def test_what_is_not_plain_is_left_to_libjpeg(decoders: Any) -> None:
    decoder = decoders(DEIT)
    pictures = (encode(smooth(500, 375), progressive=True), encode(smooth(500, 375).convert("CMYK")))
    for body in pictures:
        assert torch.equal(decode(body, DEIT, LIMITS, other=decoder), decode(body, DEIT, LIMITS))
    long, other_format = encode(smooth(2000, 300)), io.BytesIO()
    smooth(500, 375).save(other_format, "PNG")
    for body in (long, other_format.getvalue()):
        assert torch.equal(decode(body, DEIT, LIMITS, other=decoder), decode(body, DEIT, LIMITS))
    assert decoder.files["decoded"] == decoder.files["failed"] == 0


def test_broken_files_are_refused_as_without_it(decoders: Any) -> None:
    decoder, whole = decoders(DEIT), encode(smooth(500, 375))
    for part in (0.01, 0.1, 0.5, 0.9, 0.999):
        with pytest.raises(BadImage):
            decode(whole[: int(len(whole) * part)], DEIT, LIMITS, other=decoder)
    for limits in (Limits(max_pixels=500 * 375 - 1), Limits(max_bytes=len(whole) - 1)):
        with pytest.raises(TooLarge):
            decode(whole, DEIT, limits, other=decoder)
    assert not decoder.files["decoded"], "nothing reached it"


def test_whatever_the_coded_pixels_are_there_is_a_picture_and_the_next_is_right(decoders: Any) -> None:
    decoder, whole = decoders(DEIT), encode(smooth(500, 375))
    generator, scan = np.random.default_rng(7), whole.index(b"\xff\xda") + 20
    for _ in range(30):
        body = bytearray(whole)
        at = int(generator.integers(scan, len(body) - 4))
        body[at] = int(generator.integers(0, 255))
        try:
            expected = decode(bytes(body), DEIT, LIMITS).shape
        except ServeError:
            with pytest.raises(ServeError):
                decode(bytes(body), DEIT, LIMITS, other=decoder)
        else:
            assert decode(bytes(body), DEIT, LIMITS, other=decoder).shape == expected
    for kept in (0, 10, 1000):
        closed = whole[: scan + kept] + b"\xff\xd9"
        assert decode(closed, DEIT, LIMITS, other=decoder).shape == (3, 224, 224)
    assert apart(whole, decoder) < 1.5


def test_threads_get_each_their_own_picture(decoders: Any) -> None:
    decoder = decoders(DEIT)
    bodies = [encode(smooth(400 + 10 * number, 375)) for number in range(8)]
    alone = [decode(body, DEIT, LIMITS, other=decoder) for body in bodies]
    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(
            pool.map(partial(decode, preprocessing=DEIT, limits=LIMITS, other=decoder), bodies * 5)
        ):
            assert torch.equal(found, alone[number % len(bodies)])
    assert decoder.files == {"decoded": 6 * len(bodies)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_files_are_decoded_beside_an_engine_that_records_graphs() -> None:
    engine = Engine.load("digits", None, "cuda", max_batch=8)
    preprocessing = LookupTable.load(folder("digits")).family.preprocessing
    decoder = nvjpeg.on_gpu(engine.device, preprocessing)
    body = encode(smooth(500, 375))
    alone = decode(body, preprocessing, LIMITS, other=decoder)
    with ThreadPoolExecutor(1) as other:
        warm = other.submit(engine.warm_up, [2, 30, 1, 0])
        beside = [decode(body, preprocessing, LIMITS, other=decoder)]
        while not warm.done():
            beside.append(decode(body, preprocessing, LIMITS, other=decoder))
        warm.result()
    assert all(torch.equal(alone, found) for found in beside)
    assert decoder.files == {"decoded": 1 + len(beside)}, decoder.failure
    assert engine.staged
    assert engine.staged.graphs.captured >= 4
    assert engine.staged.graphs.off is None
    with ThreadPoolExecutor(2) as other:
        found = other.submit(lambda: [engine.run([alone] * 8, [2] * 8)[0].indices[0] for _ in range(50)])
        again = [decode(body, preprocessing, LIMITS, other=decoder) for _ in range(50)]
        assert len(set(found.result())) == 1
    assert all(torch.equal(alone, each) for each in again)


def test_where_the_device_fails_libjpeg_decodes_and_the_fault_is_told() -> None:
    def fails(file: torch.Tensor, gray: bool) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.\nand much else")

    decoder, body = on_cpu(fails), encode(smooth(500, 375))
    for _ in range(2 * LANES):
        assert torch.equal(decode(body, DEIT, LIMITS, other=decoder), decode(body, DEIT, LIMITS))
    assert decoder.files == {"failed": 2 * LANES}
    assert decoder.failure == "CUDA out of memory."


def test_a_picture_of_another_size_than_announced_is_a_fault() -> None:
    decoder, body = on_cpu(lambda file, gray: torch.zeros(3, 500, 375, dtype=torch.uint8)), encode(smooth(500, 375))
    assert torch.equal(decode(body, DEIT, LIMITS, other=decoder), decode(body, DEIT, LIMITS))
    assert decoder.files == {"failed": 1}


def test_no_more_files_are_on_the_device_than_it_has_lanes() -> None:
    together, counting = Barrier(LANES, timeout=60), Lock()
    inside = most = 0

    @contextmanager
    def lane() -> Iterator[None]:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        yield
        with counting:
            inside -= 1

    def waits_for_others(file: torch.Tensor, gray: bool) -> torch.Tensor:
        together.wait()
        return by_libjpeg(file, gray)

    lanes: list[Any] = [lane] * LANES
    decoder, body = NvJpeg(waits_for_others, lanes, DEIT), encode(smooth(300, 300))
    with ThreadPoolExecutor(3 * LANES) as pool:
        list(pool.map(partial(decode, preprocessing=DEIT, limits=LIMITS, other=decoder), [body] * 6 * LANES))
    assert (most, inside) == (LANES, 0)
    assert decoder.files == {"decoded": 6 * LANES}


def test_a_lane_is_left_however_a_file_fares() -> None:
    left: list[bool] = []

    @contextmanager
    def lane() -> Iterator[None]:
        try:
            yield
        finally:
            left.append(True)

    only: list[Any] = [lane]
    decoder = NvJpeg(by_libjpeg, only, DEIT)
    whole = encode(smooth(500, 375))
    decode(whole[:5000] + b"\xff\xd9", DEIT, LIMITS, other=decoder)
    decode(whole, DEIT, LIMITS, other=decoder)
    assert left == [True, True]
    assert decoder.files == {"failed": 1, "decoded": 1}


@pytest.mark.parametrize(
    ("size", "made"),
    [((3000, 4001), (750, 1001)), ((1500, 999), (750, 500)), ((1500, 990), (1500, 990)), ((9, 7), (9, 7))],
)
def test_a_large_picture_is_made_smaller_by_averages_first(size: tuple[int, int], made: tuple[int, int]) -> None:
    planes = torch.full((3, *size), 201, dtype=torch.uint8)
    found = smaller(planes, 496)
    assert found.shape == (3, *made)
    assert found.dtype == torch.float32
    assert set(found.flatten().tolist()) == {201.0}
