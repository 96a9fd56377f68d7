"""How the system schedules a thread beside others that want the same processor."""

import os
from contextlib import suppress


def give_way(willing: bool) -> None:
    """Have this thread, when something comes for it, wait until others pause rather than interrupt them; or not.

    An event loop that waits then handles together what came meanwhile, and interrupts the engine less often
    (benchmarks/served). Threads inherit it. Nothing changes where the thread was started with another policy than the
    usual one, or where there are none.
    """
    if not hasattr(os, "sched_setscheduler"):
        return
    with suppress(OSError):  # a sandbox may not allow it
        if os.sched_getscheduler(0) in {os.SCHED_OTHER, os.SCHED_BATCH}:
            os.sched_setscheduler(0, os.SCHED_BATCH if willing else os.SCHED_OTHER, os.sched_param(0))
