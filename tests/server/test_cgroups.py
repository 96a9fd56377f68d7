"""Limits from made-up cgroup files, as hosts and containers of both versions show them."""

import os
from pathlib import Path

import pytest

from server.cgroups import Cgroups, Quota, allowed_processors, cpus

MANY = 1 << 20  # bytes


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2_CONTAINER = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 2500000\nuser_usec 2\nnr_periods 40\nnr_throttled 10\nthrottled_usec 9\n",
    "sys/fs/cgroup/memory.max": f"{100 * MANY}\n",
    "sys/fs/cgroup/memory.current": f"{90 * MANY}\n",
    "sys/fs/cgroup/memory.stat": f"anon 5\nfile 7\ninactive_file {30 * MANY}\n",
}
V1_CONTAINER = {
    # The host's path: inside the container the mount's root is the container's cgroup.
    "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/cpu.stat": "nr_periods 40\nnr_throttled 10\nthrottled_time 9\n",
    "sys/fs/cgroup/cpuacct/cpuacct.usage": "2500000000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{100 * MANY}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{90 * MANY}\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {30 * MANY}\n",
}


@pytest.mark.parametrize("files", [V2_CONTAINER, V1_CONTAINER])
def test_a_container_sees_its_own_limits(tmp_path: Path, files: dict[str, str]) -> None:
    found = Cgroups(tree(tmp_path, files))
    assert found.quotas() == (Quota(1.5, 2.5, 40, 10),)
    assert found.memory_left() == 40 * MANY  # cache that can be dropped counts as free
    assert cpus(tmp_path) == min(1.5, len(allowed_processors()))


def test_a_quota_of_a_tenth_of_a_processor_and_one_of_more_than_there_are(tmp_path: Path) -> None:
    tree(tmp_path, V2_CONTAINER | {"sys/fs/cgroup/cpu.max": "10000 100000\n"})
    assert cpus(tmp_path) == 0.1
    tree(tmp_path, {"sys/fs/cgroup/cpu.max": "100000000 100000\n"})
    assert cpus(tmp_path) == len(allowed_processors())


def test_the_levels_above_limit_too(tmp_path: Path) -> None:
    pod = "sys/fs/cgroup/pod"
    files = {
        "proc/self/cgroup": "0::/pod/ours\n",
        f"{pod}/ours/cpu.max": "max 100000\n",
        f"{pod}/ours/memory.max": "max\n",
        f"{pod}/ours/memory.current": "17\n",
        f"{pod}/cpu.max": "50000 100000\n",
        f"{pod}/cpu.stat": "usage_usec 7000000\n",
        f"{pod}/memory.max": "1000\n",
        f"{pod}/memory.current": "900\n",
        f"{pod}/memory.stat": "anon 900\n",
    }
    found = Cgroups(tree(tmp_path, files))
    assert found.quotas() == (Quota(0.5, 7.0),)
    assert found.memory_left() == 100


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/user.slice/session\n"},
        {"proc/self/cgroup": "0::/../outside\n"},
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
        {
            "proc/self/cgroup": "4:memory:/a\n2:cpuacct:/\n1:cpu:/\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpuacct/cpuacct.usage": "1\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "100\n",
        },
    ],
    ids=["no cgroups", "no files", "outside the namespace", "v2 without limit", "v1 without limit"],
)
def test_without_a_limit_the_affinity_alone_counts(tmp_path: Path, files: dict[str, str]) -> None:
    found = Cgroups(tree(tmp_path, files))
    assert found.quotas() == ()
    assert found.memory_left() is None
    assert cpus(tmp_path) == len(allowed_processors())


def test_more_in_use_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    tree(tmp_path, V2_CONTAINER | {"sys/fs/cgroup/memory.max": f"{10 * MANY}\n"})
    assert Cgroups(tmp_path).memory_left() == 0


def test_a_limit_that_is_set_or_lifted_later_is_seen(tmp_path: Path) -> None:
    found = Cgroups(tree(tmp_path, V2_CONTAINER))
    tree(tmp_path, {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"})
    assert (found.quotas(), found.memory_left()) == ((), None)
    tree(tmp_path, {"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert found.quotas()[0].cpus == 2.0


def test_the_affinity_counts_processors_that_are_there() -> None:
    assert 1 <= len(allowed_processors()) <= (os.cpu_count() or 1)
    assert cpus() <= len(allowed_processors())
