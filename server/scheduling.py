"""How the system schedules a thread beside others that want the same processor."""

import ctypes
import os
import platform
import struct
from contextlib import suppress

TURN = 0.015
"""Seconds. On one core, batches then end sooner than what came after them is read and decoded (benchmarks/served)."""

SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}.get(platform.machine())  # sched_setattr, which few C libraries have
ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice value, priority, turn, two that others have


def take_turns(*, interrupting: bool = True) -> None:
    """Have this thread, while others want its processor too, keep it for a TURN; and interrupt theirs or not.

    An event loop that waits when something comes for it handles together what came meanwhile, and interrupts the
    engine less often (benchmarks/served). Threads inherit it. Nothing changes where the thread was started with another
    policy than the usual one, or where there are none; before Linux 6.12 turns stay as short as the system has them.
    """
    if not hasattr(os, "sched_setscheduler"):
        return
    with suppress(OSError):  # a sandbox may not allow it
        if os.sched_getscheduler(0) in {os.SCHED_OTHER, os.SCHED_BATCH}:
            policy = os.SCHED_OTHER if interrupting else os.SCHED_BATCH
            os.sched_setscheduler(0, policy, os.sched_param(0))
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            told = ATTRIBUTES.pack(ATTRIBUTES.size, policy, 0, nice, 0, round(TURN * 1e9), 0, 0)
            if SET_ATTRIBUTES:
                ctypes.CDLL(None).syscall(SET_ATTRIBUTES, 0, told, 0)
