"""How much memory this process may still take, inside a container or out."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Bytes: what the host has free or can free, or what the container's limit leaves if less.

    Args:
        meminfo: the kernel's account of the host (proc(5)).
        cgroup: this process' control group, version 2.
    """
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    host = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except OSError:
        return host
    # File cache counts as used but is given up under pressure.
    cached = _statistic(cgroup, "inactive_file")
    return host if limit == "max" else max(0, min(host, int(limit) - used + cached))


def _statistic(cgroup: Path, name: str) -> int:
    for line in (cgroup / "memory.stat").read_text().splitlines():
        key, value = line.split()
        if key == name:
            return int(value)
    return 0
