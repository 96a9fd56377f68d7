"""Which decoder is taken, and that a server says so."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from conftest import Running, run, settings
from no_nvjpeg import DEIT, by_libjpeg, encode, on_cpu, smooth

from lookup_tables.table import Preprocessing
from server import jpeg
from server.decoding import AS_SET, Decoding, Setting, choose, measured
from server.images import Limits, is_quick
from server.nvjpeg import Decode, NvJpeg
from server.pixels import decode
from server.service import Service

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
LANCZOS = Preprocessing(224, 0.9, "lanczos", DEIT.mean, DEIT.std)


class Clock:
    """By it, trials take these seconds in turns; each round before them, which is not timed, asks it once a trial."""

    def __init__(self, *took: float) -> None:
        self.now, self._took, self._asked = 0.0, took, -len(took)

    def __call__(self) -> float:
        if self._asked > 0 and self._asked % 2:
            self.now += self._took[self._asked // 2 % len(self._took)]
        self._asked += 1
        return self.now


def chosen(decode: Decode = by_libjpeg, turbo: float = 1.0, gpu: float = 0.25, **options: Any) -> Decoding:
    def find(device: torch.device, preprocessing: Preprocessing) -> NvJpeg:
        return on_cpu(decode, preprocessing=preprocessing)

    given: dict[str, Any] = {"setting": "fast", "device": CUDA, "threads": 2, "preprocessing": DEIT}
    return choose(**(given | {"find": find, "clock": Clock(turbo, gpu)} | options))


def fails(file: torch.Tensor, gray: bool) -> torch.Tensor:
    raise RuntimeError("nvJPEG is out of sorts\nat line 7")


def test_nvjpeg_is_taken_where_it_is_faster_and_starts_to_count_then() -> None:
    found = chosen()
    assert (found.name, found.reason) == ("nvjpeg", "32 images/s by nvJPEG, 8 by libjpeg-turbo, 2 at once")
    assert found.nvjpeg is not None
    assert not found.nvjpeg.files


@pytest.mark.parametrize("gpu", [0.9, 1.0, 3.0])
def test_it_is_not_taken_for_a_little(gpu: float) -> None:
    found = chosen(gpu=gpu)
    assert (found.name, found.nvjpeg) == ("turbo", None)
    assert found.reason.startswith("nvJPEG gains too little: ")


def absent(*_: object) -> NvJpeg:
    raise AttributeError("'image' has no decode_jpegs_cuda")


def refused(*_: object) -> NvJpeg:
    raise RuntimeError("not compiled with nvJPEG support\nException raised from")


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        ({"setting": "exact"}, "exact", AS_SET),
        ({"setting": "turbo"}, "turbo", AS_SET),
        ({"device": CPU}, "turbo", "the engine is on no CUDA GPU"),
        ({"frontends": 1}, "turbo", "front ends decode, and they know no GPU"),
        ({"find": absent}, "turbo", "there is no nvJPEG: 'image' has no decode_jpegs_cuda"),
        ({"find": refused}, "turbo", "there is no nvJPEG: not compiled with nvJPEG support"),
        ({"decode": fails}, "turbo", "nvJPEG does not work: nvJPEG is out of sorts"),
        ({"preprocessing": LANCZOS}, "turbo", "nvJPEG does not work: it has nothing to do for this family"),
    ],
)
def test_where_it_cannot_be_or_is_not_wanted_the_reason_is_told(
    options: dict[str, Any], name: str, reason: str
) -> None:
    found = chosen(**options)
    assert (found.name, found.nvjpeg) == (name, None)
    assert found.reason.startswith(reason)
    assert "\n" not in found.reason


def test_what_is_timed_is_a_photograph_that_goes_to_a_thread_and_to_the_gpu() -> None:
    body = jpeg.sample()
    assert jpeg.header(body) == jpeg.Header((500, 375), "RGB")
    assert 50_000 < len(body) < 150_000
    assert not is_quick(body)
    seen: list[bytes] = []
    rates = measured({"turbo": seen.append}, [body] * 12, 3, Clock(0.5))
    assert set(seen) == {body}
    assert rates == {"turbo": 24}


@pytest.mark.parametrize("setting", ["fast", "turbo", "exact"])
def test_a_server_without_a_gpu_says_what_decodes(cache: Path, running: Running, setting: Setting) -> None:
    with running.client() as client:
        told = client.get("/status").json()["decoder"]
    assert told == {"name": "turbo", "reason": "the engine is on no CUDA GPU", "failed": 0, "failure": None}
    service = Service(settings(cache, decode=setting), running.service.engine, running.service.table)
    assert service.decoding == Decoding("exact" if setting == "exact" else "turbo", AS_SET)


def test_a_server_decodes_by_it_what_is_not_small_and_tells_what_became_of_files(
    cache: Path, running: Running, sample: bytes
) -> None:
    table = running.service.table
    works = [True]

    def at_times(file: torch.Tensor, gray: bool) -> torch.Tensor:
        return by_libjpeg(file, gray) if works[0] else fails(file, gray)

    gpu = NvJpeg(at_times, [nullcontext], table.family.preprocessing)
    service = Service(settings(cache), running.service.engine, table, decoding=Decoding("nvjpeg", "it was quick", gpu))

    def files(client: httpx.Client) -> dict[str, float]:
        lines = [line for line in client.get("/metrics").text.splitlines() if "nvjpeg_files_total{" in line]
        return {line.split('"')[1]: float(line.split()[-1]) for line in lines}

    for served in run(service):
        with served.client() as client:
            assert files(client) == {"decoded": 0, "left": 0, "failed": 0}
            assert post(client, sample) == 200, "small, and read where it came in"
            assert files(client) == {"decoded": 0, "left": 0, "failed": 0}
            whole = encode(smooth(500, 375))
            assert post(client, whole) == 200
            assert post(client, encode(smooth(500, 375), progressive=True)) == 200
            assert post(client, whole[: len(whole) // 2]) == 400
            works[0] = False
            assert post(client, whole) == 200
            assert files(client) == {"decoded": 1, "left": 2, "failed": 1}
            told = client.get("/status").json()["decoder"]
            assert told == {
                "name": "nvjpeg",
                "reason": "it was quick",
                "failed": 1,
                "failure": "nvJPEG is out of sorts",
            }
            assert client.get("/livez").status_code == 200


def post(client: httpx.Client, body: bytes) -> int:
    return client.post("/classify", content=body, headers={"content-type": "image/jpeg"}).status_code


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_both_are_timed_and_what_is_taken_decodes() -> None:
    found = choose("fast", CUDA, 2, DEIT)
    assert "images/s by nvJPEG" in found.reason
    body = encode(smooth(500, 375))
    off = decode(body, DEIT, Limits(), other=found.nvjpeg).int() - decode(body, DEIT, Limits()).int()
    assert off.abs().float().mean() < 1.5
    assert found.used.failed == 0
