"""Seconds that a GPU's kernels and copies take, whatever the host does in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile

if TYPE_CHECKING:
    from collections.abc import Callable


def kernel_seconds(action: Callable[[], object], device: torch.device) -> float | None:
    """Sum of the durations of everything that `action` makes a GPU do, in any thread.

    The profiler slows the host down, so the time of `action` itself is not to be measured meanwhile.

    Returns:
        Seconds; None on a CPU, or where the profiler does not work or sees no kernels.
    """
    if device.type != "cuda":
        return None
    try:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as traced:
            action()
            torch.cuda.synchronize(device)
    except RuntimeError as error:  # a machine may lack what the profiler needs
        print(f"the profiler does not work: {error}")
        return None
    # The profiler's own list of events makes Python objects of them all, which takes seconds for 100,000 kernels.
    results = None if traced.profiler is None else traced.profiler.kineto_results
    nanoseconds = sum(
        event.duration_ns()
        for event in (() if results is None else results.events())
        if event.device_type().name == "CUDA"
    )
    return nanoseconds / 1e9 if nanoseconds else None
