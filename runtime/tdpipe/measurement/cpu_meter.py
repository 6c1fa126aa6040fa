"""What the control plane computes itself, as shares of a core. Linux only, as the kernel's accounts are read."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """CPU time, as sums since some time in the past."""

    process: float
    """Of all threads of the controller."""
    engine: float
    """Of the engine's thread: scheduling, issuing, booking."""

    @classmethod
    def now(cls, engine_thread: str = "engine") -> CpuSeconds:
        """The sums at this moment."""
        named = (each for each in threading.enumerate() if each.name == engine_thread)
        return cls(time.process_time(), sum(_thread_seconds(each) for each in named))


def _thread_seconds(thread: threading.Thread) -> float:
    # The command's name may hold blanks, but ends with the last parenthesis.
    text = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    columns = text.rpartition(")")[2].split()
    return (int(columns[11]) + int(columns[12])) / _TICKS
