"""How the system schedules a thread beside others that want the same processor."""

import ctypes
import os
import platform
import struct
from contextlib import suppress

TURN = 0.015
"""Seconds, several times what the system gives: what came after a batch is then rarely read and decoded while that is
computed, for which all on one core wait. How much longer it is hardly matters (benchmarks/served)."""

SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}.get(platform.machine())  # sched_setattr, which few C libraries have
ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice value, priority, turn, two that others have


def policy_now() -> int | None:
    """This thread's; None where there are none, or a sandbox does not tell."""
    with suppress(OSError):
        if hasattr(os, "SCHED_BATCH"):  # Linux alone
            return os.sched_getscheduler(0)
    return None


FROM_THE_START = policy_now()


def take_turns(*, interrupting: bool = True, call: int | None = SET_ATTRIBUTES) -> None:
    """Have this thread, while others want its processor too, keep it for a TURN; and interrupt theirs or not.

    An event loop that waits when something comes for it handles together what came meanwhile, and interrupts the
    engine less often (benchmarks/served). Threads inherit it. Nothing changes where the process was started with a
    policy that is neither the usual one nor SCHED_BATCH, or where there are none; whoever was started with SCHED_BATCH
    interrupts nobody. Before Linux 6.12, or without this `call`, turns stay as the system has them.
    """
    if FROM_THE_START is None or not {FROM_THE_START, policy_now()} <= {os.SCHED_OTHER, os.SCHED_BATCH}:
        return
    with suppress(OSError):  # a sandbox may not allow it
        policy = FROM_THE_START if interrupting else os.SCHED_BATCH
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        told = ATTRIBUTES.pack(ATTRIBUTES.size, policy, 0, nice, 0, round(TURN * 1e9), 0, 0)
        if call is None or ctypes.CDLL(None).syscall(call, 0, told, 0) != 0:
            os.sched_setscheduler(0, policy, os.sched_param(0))
