"""CPU time that unrelated processes used during a run, which tells whether its figures can be trusted.

A load average cannot tell, because it includes the run itself.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE_COLUMNS = (3, 4)
"""Columns of /proc/stat that hold idle and iowait (proc(5))."""
_COUNTED_COLUMNS = 8
"""The columns after these are guest time, which user time includes already."""


class BackgroundLoad:
    """Measures the load from its construction on. Linux only."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = _background_seconds()

    def cores(self) -> float:
        """Average number of cores that processes other than this one and its descendants kept busy."""
        elapsed = time.perf_counter() - self._started
        return max(0.0, (_background_seconds() - self._before) / elapsed)


def _background_seconds() -> float:
    first = (_PROC / "stat").read_text().splitlines()[0]
    columns = [int(ticks) for ticks in first.split()[1 : 1 + _COUNTED_COLUMNS]]
    busy = sum(columns) - sum(columns[column] for column in _IDLE_COLUMNS)
    return busy / _TICKS - _own_seconds()


def _own_seconds() -> float:
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            # The command's name may contain blanks, but it ends with the last parenthesis.
            columns = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended since the folder was listed
            continue
        pid = int(folder.name)
        parents[pid] = int(columns[1])
        # User and system time of the process and of its children that have ended.
        ticks[pid] = sum(int(column) for column in columns[11:15])
    own = {os.getpid()}
    while children := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= children
    return sum(ticks[pid] for pid in own) / _TICKS
