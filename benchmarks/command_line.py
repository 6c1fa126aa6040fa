"""The command that a benchmark's section shows beside its figures."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def shown_command(name: str) -> str:
    """How this run of `benchmarks.NAME` was called."""
    # Where files lie on this machine is nobody else's business.
    arguments = [Path(each).name if "/" in each else each for each in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{name}", *arguments])
