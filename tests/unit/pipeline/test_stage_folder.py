"""What stages tell the process that started Ray on their machine."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from typing import TYPE_CHECKING

from tdpipe.pipeline.ray.stage_folder import VARIABLE, StageFolder, StageState

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PROGRAM = """
import os
from tdpipe.pipeline.ray.stage_folder import StageFolder
folder = StageFolder.from_environment()
folder.redirect_output(3)
print("loaded")
os.write(2, b"from a library\\n")
print("x" * 200_000)
"""


def run_stage(folder: Path) -> None:
    environment = os.environ | {VARIABLE: str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, timeout=60)


def test_the_state_of_a_living_stage_is_read_back(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    assert folder.read(0) is None
    for loaded in (False, True):
        state = StageState(0, 7, os.getpid(), loaded)
        folder.write(state)
        assert folder.read(0) == state


def test_the_state_of_a_dead_stage_does_not_count(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    folder = StageFolder(tmp_path)
    folder.write(StageState(0, 7, ended.pid, loaded=True))
    assert folder.read(0) is None


def test_each_line_that_a_stage_prints_comes_with_its_number(tmp_path: Path) -> None:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    StageFolder(tmp_path).print_output([2, 3], lines.put)
    for _ in range(2):  # a restarted stage prints to the same pipe
        run_stage(tmp_path)
        got = [lines.get(timeout=10) for _ in range(3)]
        assert got[:2] == ["stage 3: loaded\n", "stage 3: from a library\n"]
        assert len(got[2]) > 200_000


def test_a_reader_that_has_gone_does_not_block_a_stage(tmp_path: Path) -> None:
    def fail(_: str) -> None:
        raise BrokenPipeError

    StageFolder(tmp_path).print_output([3], fail)
    run_stage(tmp_path)


def test_a_stage_whose_output_nobody_takes_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert StageFolder.from_environment() is None
