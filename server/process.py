"""What this process asks of the C library and of OpenMP; `prepare` counts only before torch is loaded."""

import ctypes
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MOST_FROM_HEAP = 1 << 30  # bytes; what is larger is mapped by itself
NEVER_TRIM = 2**31 - 1
OWN_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
SPIN = "GOMP_SPINCOUNT"
SPINS = "2000"


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make the process fit to serve; what its environment says already is left as it is."""
    keep_freed_memory(environment)
    spin_briefly(environment)


def keep_freed_memory(environment: Mapping[str, str] = os.environ, libc: Any = None) -> bool:
    """Have malloc keep what is freed, for the next batch; False where the C library is another, or told already.

    glibc hands large blocks back to the system at once, and every batch then faults in its activations page by page.
    The price: the process stays as large as it ever was.
    """
    if sys.platform != "linux" or any(name in environment for name in OWN_MALLOC):
        return False
    mallopt = getattr(libc or ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MOST_FROM_HEAP) and mallopt(M_TRIM_THRESHOLD, NEVER_TRIM))


def give_back_freed_memory(libc: Any = None) -> bool:
    """Have malloc give what is free to the system; False where the C library is another, or nothing was.

    For once: loading leaves free pieces that no batch fits into (`benchmarks/engine/memory.py`).
    """
    trim = getattr(libc or ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return bool(trim and trim(0))


def spin_briefly(environment: MutableMapping[str, str], loaded: Mapping[str, object] = sys.modules) -> bool:
    """Have idle threads of GNU OpenMP sleep soon; False where torch is loaded, or the environment says otherwise.

    By default they spin for milliseconds between two operators. Where a decoding thread wants the same core, the
    operator waits for the spinner that waits for it.
    """
    if "torch" in loaded or SPIN in environment or "OMP_WAIT_POLICY" in environment:
        return False
    environment[SPIN] = SPINS
    return True
