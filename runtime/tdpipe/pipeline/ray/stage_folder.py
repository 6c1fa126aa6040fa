"""The folder through which the stages on a machine reach the process that started Ray there.

Ray starts the stages and hides what they print in files of its own. So each stage writes its output to a pipe in this
folder, whose lines the process prints with the stage's number, and its state to a file, from which probes are answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VARIABLE = "RAY_TDPIPE_STAGE_FOLDER"
"""Variable of the environment that names the folder to the processes that Ray starts. It does not begin with `TDPIPE_`,
because it is not a setting."""


@dataclass(frozen=True, slots=True)
class StageState:
    """What a stage reports about itself."""

    stage: int
    epoch: int
    pid: int
    loaded: bool
    """Whether the stage has loaded its weights and is connected to the others."""


class StageFolder:
    """The folder at `path`, which must exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def from_environment(cls) -> StageFolder | None:
        """Return the folder that the environment names, if it names one."""
        path = os.environ.get(VARIABLE)
        return cls(Path(path)) if path else None

    def write(self, state: StageState) -> None:
        """Replace the stage's state."""
        file = self._state_file(state.stage)
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(asdict(state)))
        draft.rename(file)

    def read(self, stage: int) -> StageState | None:
        """Return the last state of a stage whose process lives; None if there is none."""
        try:
            state = StageState(**json.loads(self._state_file(stage).read_text()))
            os.kill(state.pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return None
        return state

    def print_output(self, stages: Iterable[int], write: Callable[[str], object]) -> None:
        """Pass each line that a stage prints to `write`, with the stage's number before it, in threads of their own."""
        for stage in stages:
            pipe = self._pipe(stage)
            with contextlib.suppress(FileExistsError):
                os.mkfifo(pipe, 0o600)
            # With a writer of its own, the pipe does not end when a stage does.
            descriptor = os.open(pipe, os.O_RDWR)
            threading.Thread(
                target=_copy_lines, args=(descriptor, f"stage {stage}: ", write), daemon=True
            ).start()

    def redirect_output(self, stage: int) -> None:
        """Send all that this process prints to the stage's pipe, if somebody reads it."""
        try:
            descriptor = os.open(self._pipe(stage), os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return
        os.set_blocking(descriptor, True)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(line_buffering=True)

    def _state_file(self, stage: int) -> Path:
        return self.path / f"stage-{stage}.json"

    def _pipe(self, stage: int) -> Path:
        return self.path / f"stage-{stage}.output"


def _copy_lines(descriptor: int, prefix: str, write: Callable[[str], object]) -> None:
    with os.fdopen(descriptor, "rb") as pipe:
        for line in pipe:
            # Whoever reads the lines may have gone, but a pipe that nobody empties would block the stage.
            with contextlib.suppress(OSError):
                write(f"{prefix}{line.decode(errors='replace').rstrip()}\n")
