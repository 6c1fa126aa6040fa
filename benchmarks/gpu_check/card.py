"""The device and what it can do at most: its memory's bandwidth and its bfloat16 rate, as measured.

Every share in the check is a share of these two figures, not of a data sheet's.
"""

from __future__ import annotations

import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu_check.part import Finding
from benchmarks.machine import cpu_cores
from tdpipe.model.device import device_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.gpu_check.context import CheckContext

_REPEATS = 20
_FREE_SHARE = 0.25
"""Maximum share of the device's free memory for each of the two tensors of the copy."""


def describe_card(device: torch.device) -> str:
    """Name of the device, and the versions that compute on it."""
    packages = []
    for name in ("torch", "triton", "transformers", "numpy"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    card = f"{device_name(device)}, {cpu_cores()} CPU cores"
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        card = f"{device_name(device)} ({memory:.0f} GiB, CUDA {torch.version.cuda}), {cpu_cores()} CPU cores"
    return f"{card}; Python {platform.python_version()}, {', '.join(packages)}"


def measure_bandwidth(context: CheckContext) -> Finding:
    """Copy a large tensor on the device; every byte is read once and written once."""
    device, size = context.device, context.scale.copy_bytes
    if device.type == "cuda":
        size = min(size, int(_FREE_SHARE * torch.cuda.mem_get_info(device)[0]))
    source = torch.zeros(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    seconds = _median_seconds(lambda: target.copy_(source), device)
    context.bandwidth = 2 * source.nbytes / seconds
    return Finding(
        f"{context.bandwidth / 1e9:.1f} GB/s read and written by a copy of {size / 2**20:.0f} MiB",
        {"bytes_per_second": context.bandwidth},
    )


def measure_rate(context: CheckContext) -> Finding:
    """Multiply two large random matrices in bfloat16."""
    size = context.scale.matrix
    left, right = (
        torch.randn((size, size), device=context.device).to(torch.bfloat16) for _ in range(2)
    )
    seconds = _median_seconds(lambda: torch.matmul(left, right), context.device)
    context.rate = 2 * size**3 / seconds
    return Finding(
        f"{context.rate / 1e12:.3g} TFLOP/s in a product of two {size} x {size} matrices",
        {"flops_per_second": context.rate},
    )


def _median_seconds(action: Callable[[], object], device: torch.device) -> float:
    """Median time of `action` by the device's own clock, after a few runs that warm it up."""
    for _ in range(3):
        action()
    times = []
    for _ in range(_REPEATS):
        if device.type == "cuda":
            begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            begin.record()
            action()
            end.record()
            end.synchronize()
            times.append(float(begin.elapsed_time(end)) / 1e3)
        else:
            started = time.perf_counter()
            action()
            times.append(time.perf_counter() - started)
    return statistics.median(times)
