"""Where a benchmark ran, in the words that its row in `docs/benchmarks/` needs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

QUIET_LOAD = 1.0
"""Highest one-minute load average of a machine on which nothing else computes."""


def cpu_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> str:
    """Return the processor, the cores, the versions of packages and the load before the benchmark started."""
    load = os.getloadavg()[0]
    state = "quiet" if load <= QUIET_LOAD else "LOADED"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "ray"))
    return (
        f"{_cpu_model()}, {cpu_cores()} cores; Python {platform.python_version()}, {packages}; "
        f"{state} before the start (load average {load:.2f})"
    )


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    models = [
        line.split(":", 1)[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return models[0] if models else platform.processor() or platform.machine()
