"""What the process asks of the C library and of OpenMP."""

import subprocess
import sys
from typing import Any

import pytest

from server.process import give_back_freed_memory, keep_freed_memory, spin_briefly

ON_GLIBC = sys.platform == "linux" and keep_freed_memory({})


class Libc:
    """Records what malloc is told."""

    def __init__(self, answer: int = 1) -> None:
        self.told: dict[int, int] = {}
        self.trimmed: list[int] = []
        self.answer = answer

    def mallopt(self, parameter: int, value: int) -> int:
        self.told[parameter] = value
        return self.answer

    def malloc_trim(self, keep: int) -> int:
        self.trimmed.append(keep)
        return self.answer


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_malloc_is_told_to_keep_what_is_freed() -> None:
    libc = Libc()
    assert keep_freed_memory({}, libc)
    assert libc.told == {-3: 1 << 30, -1: 2**31 - 1}
    assert not keep_freed_memory({}, Libc(answer=0))


def test_a_library_without_mallopt_is_left_alone() -> None:
    class Musl:
        pass

    assert not keep_freed_memory({}, Musl())
    assert not give_back_freed_memory(Musl())


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_what_is_free_is_given_back_all_of_it() -> None:
    libc = Libc()
    assert give_back_freed_memory(libc)
    assert libc.trimmed == [0]
    assert not give_back_freed_memory(Libc(answer=0))


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_environment_says_of_malloc_stands(name: str) -> None:
    libc = Libc()
    assert not keep_freed_memory({name: "1"}, libc)
    assert not libc.told


FAULTS = """
import ctypes, resource
from server.process import keep_freed_memory
{prepare}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(200_000_000)
    ctypes.memset(block, 1, 200_000_000)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


LEFT = """
import psutil
from server.process import give_back_freed_memory, keep_freed_memory
keep_freed_memory({{}})
pieces = [bytearray(100_000) for _ in range(1000)]
last = bytearray(100_000)
pieces.clear()
{then}
print(psutil.Process().memory_info().rss)
"""


def said(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def faults(prepare: str) -> int:
    return said(FAULTS.format(prepare=prepare))


@pytest.mark.skipif(not ON_GLIBC, reason="needs glibc")
def test_what_was_kept_may_be_given_back() -> None:
    assert said(LEFT.format(then="")) - said(LEFT.format(then="give_back_freed_memory()")) > 50_000_000


@pytest.mark.skipif(not ON_GLIBC, reason="needs glibc")
def test_a_large_block_that_comes_again_costs_no_page_faults() -> None:
    assert faults("") > 100
    assert faults("keep_freed_memory({})") < 100


@pytest.mark.parametrize(
    ("environment", "loaded", "told"),
    [
        ({}, {}, {"GOMP_SPINCOUNT": "2000"}),
        ({"GOMP_SPINCOUNT": "7"}, {}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {}, {"OMP_WAIT_POLICY": "active"}),
        ({}, {"torch": None}, {}),
    ],
)
def test_idle_threads_are_told_to_sleep_unless_told_otherwise_or_too_late(
    environment: dict[str, str], loaded: dict[str, Any], told: dict[str, str]
) -> None:
    was_told = spin_briefly(environment, loaded)
    assert environment == told
    assert was_told == (environment.get("GOMP_SPINCOUNT") == "2000")


def test_the_command_line_loads_no_torch_before_the_process_is_prepared() -> None:
    code = "import sys, server.cli, server.process; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"
