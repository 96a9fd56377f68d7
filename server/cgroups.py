"""What a container may use: processor time and memory, read from cgroup files, version 2 or 1."""

import os
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path("/")
NO_LIMIT = 1 << 62  # bytes; version 1 says "no limit" with a number just below 2**63


class Quota(NamedTuple):
    """A limit on processor time: the CPUs it is worth, and what was counted since it was made.

    `used` is in CPU seconds, of all processes inside; `throttled` of `periods` periods ended with all of it spent.
    """

    cpus: float
    used: float
    periods: int = 0
    throttled: int = 0


def cpus(root: Path = ROOT) -> float:
    """How many processors this process may use: those of its affinity, or less where a cgroup's quota says so."""
    return min([len(allowed_processors()), *(quota.cpus for quota in Cgroups(root).quotas())])


def allowed_processors() -> list[int]:
    """The numbers of the processors this process may be scheduled on, ascending."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class Cgroups:
    """The cgroups that hold this process when this is made: its own and those above it, for each limits it.

    `root` is where `/` is. Where there are no cgroups nothing is limited.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._processors = _levels(root, "", "cpu.max")
        self._processors_v1 = _levels(root, "cpu", "cpu.cfs_quota_us")
        self._accounts_v1 = _levels(root, "cpuacct", "cpuacct.usage")
        self._memory = _levels(root, "", "memory.max")
        self._memory_v1 = _levels(root, "memory", "memory.limit_in_bytes")

    def quotas(self) -> tuple[Quota, ...]:
        """The processor quotas in force, from this process's own cgroup upwards."""
        found = [_quota(folder) for folder in self._processors]
        found += map(_quota_v1, self._processors_v1, self._accounts_v1)
        return tuple(quota for quota in found if quota)

    def memory_left(self) -> int | None:
        """Bytes until the nearest memory limit, counting file cache that can be dropped as free; None without one."""
        left = [_memory_left(folder, "memory.max", "memory.current", "inactive_file") for folder in self._memory]
        left += [
            _memory_left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            for folder in self._memory_v1
        ]
        return min((number for number in left if number is not None), default=None)


def _levels(root: Path, controller: str, file: str) -> list[Path]:
    """The folders of this process's cgroup and of those above it which have such a file.

    `controller` is one of version 1, or "" for version 2. Inside a container the path may be the host's, which is not
    there: its parents end at the mount's root, and that is the container's own cgroup.
    """
    mount = root / "sys/fs/cgroup" / controller
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = PurePosixPath(path).relative_to("/")
            return [mount / level for level in (group, *group.parents) if (mount / level / file).is_file()]
    return []


def _quota(folder: Path) -> Quota | None:
    limit, _, period = _text(folder / "cpu.max").partition(" ")
    if not period or limit == "max":
        return None
    stat = _table(folder / "cpu.stat")
    used = stat.get("usage_usec", 0) / 1e6
    return Quota(int(limit) / int(period), used, stat.get("nr_periods", 0), stat.get("nr_throttled", 0))


def _quota_v1(folder: Path, account: Path) -> Quota | None:
    limit, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if limit is None or not period or limit < 0:
        return None
    stat = _table(folder / "cpu.stat")
    used = (_number(account / "cpuacct.usage") or 0) / 1e9
    return Quota(limit / period, used, stat.get("nr_periods", 0), stat.get("nr_throttled", 0))


def _memory_left(folder: Path, limit_file: str, usage_file: str, cache: str) -> int | None:
    limit = _number(folder / limit_file)
    if limit is None or limit >= NO_LIMIT:
        return None
    return max(0, limit - (_number(folder / usage_file) or 0) + _table(folder / "memory.stat").get(cache, 0))


def _number(path: Path) -> int | None:
    """The number that is all of a file; None for `max`, or without the file."""
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    return {name: int(value) for name, value in map(str.split, _text(path).splitlines())}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not a cgroup of this kind, or not for us to see
        return ""
