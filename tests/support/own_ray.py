"""A program: runs a pipeline on a Ray of its own and tells which processes it left behind."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from tdpipe.core.settings import PipelineSettings
from tdpipe.pipeline.ray_host import start_on_ray
from tests.support.fake_executor import FakeStages, continuation
from tests.support.step_driver import Driver


def descendants() -> dict[int, str]:
    """Command lines of this process' living descendants, by pid."""
    parents, commands = {}, {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            state, parent = (directory / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            commands[int(directory.name)] = (directory / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if state != "Z":
            parents[int(directory.name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: commands[pid] for pid in found - {os.getpid()}}


def run(report: dict[str, object]) -> None:
    prompts = [[1, 2], [3]]
    pipeline = start_on_ray(PipelineSettings(), FakeStages(2), "cpu", lambda _: None)
    outputs = Driver(pipeline).generate(prompts, 5)
    report["right"] = outputs == [continuation(prompt, 5) for prompt in prompts]
    running = descendants()
    report["stages"] = sum("StageActor" in command for command in running.values())
    pipeline.close()
    pipeline.close()
    report["left"] = [
        running[pid]
        for pid in running
        if Path(f"/proc/{pid}/stat").exists()
        and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    ]


if __name__ == "__main__":
    outcome: dict[str, object] = {}
    # The engine starts its pipeline from a thread of its own.
    engine = threading.Thread(target=run, args=(outcome,))
    engine.start()
    engine.join()
    json.dump(outcome, sys.stdout)
