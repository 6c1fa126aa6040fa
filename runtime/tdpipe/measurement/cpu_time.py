"""CPU time that the control plane uses: of the process, of the engine's thread and of the scheduler in it.

Linux only, as a thread's time is read from the kernel's accounts.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tdpipe.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray, Step
    from tdpipe.scheduling.scheduler import Emission, Wait

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """CPU time in seconds since some time in the past."""

    process: float
    """CPU time of all threads of the controller."""
    engine: float
    """CPU time of the engine's thread."""

    @classmethod
    def now(cls, engine_thread: str = "engine") -> CpuSeconds:
        """Return the CPU time up to this moment."""
        named = (each for each in threading.enumerate() if each.name == engine_thread)
        return cls(time.process_time(), sum(_thread_seconds(each) for each in named))


class TimedScheduler(Scheduler):
    """A scheduler that measures its own CPU time."""

    seconds = 0.0

    def next_step(self, now: float) -> Step | Wait:
        began = time.thread_time()
        step = super().next_step(now)
        self.seconds += time.thread_time() - began
        return step

    def on_result(self, step_id: int, tokens: IntArray) -> Emission:
        began = time.thread_time()
        emission = super().on_result(step_id, tokens)
        self.seconds += time.thread_time() - began
        return emission


def _thread_seconds(thread: threading.Thread) -> float:
    # The name of the command may contain spaces, but it ends with the last parenthesis.
    text = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    columns = text.rpartition(")")[2].split()
    return (int(columns[11]) + int(columns[12])) / _TICKS_PER_SECOND
