"""The command that the section of a benchmark shows. It imports nothing that a GPU machine may lack."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def shown_command(name: str) -> str:
    """Return the command that started this run of `benchmarks.NAME`, without the folders of its files."""
    # Readers have other folders, and the paths of this machine are private.
    arguments = [Path(each).name if "/" in each else each for each in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{name}", *arguments])
