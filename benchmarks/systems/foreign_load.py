"""How much of the machine others used during a run: what says whether its figures can be trusted.

A load average cannot: it counts the run itself.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE_COLUMNS = (3, 4)
"""Of /proc/stat: idle and iowait (proc(5))."""
_COUNTED_COLUMNS = 8
"""The ones behind these are guests, which user time holds already."""


class ForeignLoad:
    """Counts from its making on. Linux only."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = _foreign_seconds()

    def cores(self) -> float:
        """Cores that processes other than this one and its descendants kept busy, on average."""
        elapsed = time.perf_counter() - self._started
        return max(0.0, (_foreign_seconds() - self._before) / elapsed)


def _foreign_seconds() -> float:
    first = (_PROC / "stat").read_text().splitlines()[0]
    columns = [int(ticks) for ticks in first.split()[1 : 1 + _COUNTED_COLUMNS]]
    busy = sum(columns) - sum(columns[column] for column in _IDLE_COLUMNS)
    return busy / _TICKS - _own_seconds()


def _own_seconds() -> float:
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            # The command's name may hold blanks, but ends with the last parenthesis.
            columns = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        pid = int(folder.name)
        parents[pid] = int(columns[1])
        # User and system time, its own and of children that ended.
        ticks[pid] = sum(int(column) for column in columns[11:15])
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(ticks[pid] for pid in own) / _TICKS
