"""The CPUs and the memory that the control groups of this process leave it.

A container's limits stand in its control group, not in what the operating system reports about the machine. Versions 1
and 2 of the interface are read, and groups further up count as well, because the strictest limit holds.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_UNLIMITED_BYTES = 2**62
"""Size from which a limit of version 1 stands for none."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The control groups of a process.

    Args:
        mount: where the file systems of control groups are mounted.
        membership: the process's own list of its groups (cgroups(7)).
    """

    mount: Path = _MOUNT
    membership: Path = _MEMBERSHIP

    def cpus(self) -> float | None:
        """Return the number of CPUs that the quota allows, or None if there is no quota."""
        quotas = [quota for folder in self._folders("cpu") if (quota := _cpu_quota(folder))]
        return min(quotas, default=None)

    def memory_left(self) -> int | None:
        """Return the bytes that the process may still take, or None if there is no limit."""
        left = [room for folder in self._folders("memory") if (room := _room(folder)) is not None]
        return min(left, default=None)

    def _folders(self, controller: str) -> Iterator[Path]:
        """Yield the folders of the process's group and of all groups above it, for both versions."""
        try:
            lines = self.membership.read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, names, path = line.split(":", 2)
            if not names:
                roots = [self.mount, self.mount / "unified"]
            elif controller in names.split(","):
                roots = [self.mount / names, self.mount / controller]
            else:
                continue
            for root in filter(Path.is_dir, roots):
                # A container may see the path on its host, which does not exist in its own mount.
                folder = root / path.strip("/")
                yield from _up(folder if folder.is_dir() else root, root)
                break


def available_cpus(cgroup: Cgroup | None = None) -> int:
    """Return the number of CPUs that this process may use, at least 1. A part of a CPU counts as a whole one."""
    cpus = float(len(os.sched_getaffinity(0)))
    quota = (cgroup or Cgroup()).cpus()
    return max(1, math.ceil(cpus if quota is None else min(cpus, quota)))


def _up(folder: Path, root: Path) -> Iterator[Path]:
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _cpu_quota(folder: Path) -> float | None:
    if (text := _read(folder / "cpu.max")) is not None:
        quota, period = text.split()
        return None if quota == "max" else int(quota) / int(period)
    quota_v1 = _read(folder / "cpu.cfs_quota_us")
    period_v1 = _read(folder / "cpu.cfs_period_us")
    if quota_v1 is None or period_v1 is None or int(quota_v1) <= 0:
        return None
    return int(quota_v1) / int(period_v1)


def _room(folder: Path) -> int | None:
    for limit_name, used_name, cached_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _read(folder / limit_name), _read(folder / used_name)
        if limit is None or used is None:
            continue
        if limit == "max" or int(limit) >= _UNLIMITED_BYTES:
            return None
        # The file cache counts as used, but the kernel frees it under pressure.
        return max(0, int(limit) - int(used) + _statistic(folder, cached_name))
    return None


def _statistic(folder: Path, name: str) -> int:
    for line in (_read(folder / "memory.stat") or "").splitlines():
        key, value = line.split()
        if key == name:
            return int(value)
    return 0


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
