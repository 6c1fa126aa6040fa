"""Limits of control groups, read from folders that look like the kernel's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tdpipe.pipeline.cgroup import Cgroup, available_cpus

if TYPE_CHECKING:
    from pathlib import Path

    Files = dict[str, str]

MIB = 2**20
V2_MEMORY = {"memory.max": str(8 * MIB), "memory.current": str(3 * MIB), "memory.stat": "anon 1"}
V1_MEMORY = {
    "memory.limit_in_bytes": str(8 * MIB),
    "memory.usage_in_bytes": str(3 * MIB),
    "memory.stat": f"cache 1\ntotal_inactive_file {MIB}",
}
V1 = "4:memory:/pod\n2:cpu,cpuacct:/pod\n1:name=systemd:/pod\n"


@pytest.fixture
def make(tmp_path: Path) -> Cgroup:
    return Cgroup(tmp_path / "mount", tmp_path / "membership")


def lay(cgroup: Cgroup, membership: str, folders: dict[str, Files]) -> Cgroup:
    cgroup.membership.write_text(membership)
    cgroup.mount.mkdir()
    for path, files in folders.items():
        folder = cgroup.mount / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
    return cgroup


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", None), ("50000 100000", 0.5), ("250000 100000", 2.5)]
)
def test_a_quota_of_version_2_is_read(make: Cgroup, text: str, cpus: float | None) -> None:
    assert lay(make, "0::/\n", {".": {"cpu.max": text}}).cpus() == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", None), ("150000", 1.5)])
def test_a_quota_of_version_1_is_read(make: Cgroup, quota: str, cpus: float | None) -> None:
    files = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"}
    assert lay(make, V1, {"cpu,cpuacct/pod": files}).cpus() == cpus


@pytest.mark.parametrize("hidden", [False, True])
def test_memory_of_version_1_is_what_the_limit_leaves(make: Cgroup, *, hidden: bool) -> None:
    # A container without a namespace of its own is told its path on the host, but sees only its own folder.
    lay(make, V1, {"memory" if hidden else "memory/pod": V1_MEMORY})
    assert make.memory_left() == 6 * MIB


def test_a_limit_of_version_1_that_is_none_does_not_count(make: Cgroup) -> None:
    files = V1_MEMORY | {"memory.limit_in_bytes": "9223372036854771712"}
    assert lay(make, V1, {"memory/pod": files}).memory_left() is None


def test_the_strictest_group_on_the_way_up_counts(make: Cgroup) -> None:
    loose = V2_MEMORY | {"memory.max": str(64 * MIB), "cpu.max": "400000 100000"}
    folders = {"a": V2_MEMORY | {"cpu.max": "100000 100000"}, "a/b": loose, "a/b/c": loose}
    lay(make, "0::/a/b/c\n", folders)
    assert make.memory_left() == 5 * MIB
    assert make.cpus() == 1.0


def test_a_hybrid_mount_gives_the_limits_of_version_1(make: Cgroup) -> None:
    lay(make, f"{V1}0::/pod\n", {"memory/pod": V1_MEMORY, "unified/pod": {}})
    assert make.memory_left() == 6 * MIB


def test_without_control_groups_there_are_no_limits(make: Cgroup) -> None:
    assert make.cpus() is None
    assert make.memory_left() is None
    lay(make, "0::/gone\n", {})
    assert make.cpus() is None


def test_use_beyond_the_limit_leaves_nothing(make: Cgroup) -> None:
    files = V2_MEMORY | {"memory.max": "1000"}
    assert lay(make, "0::/\n", {".": files}).memory_left() == 0


@pytest.mark.parametrize(("quota", "cpus"), [("50000", 1), ("110000", 2), ("99900000", 4)])
def test_a_part_of_a_cpu_counts_as_a_whole_one_and_the_affinity_bounds(
    make: Cgroup, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    lay(make, "0::/\n", {".": {"cpu.max": f"{quota} 100000"}})
    assert available_cpus(make) == cpus
