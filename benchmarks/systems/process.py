"""A process for one run, so that no run inherits another's threads, memory or Ray."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import msgspec

import tdpipe
from benchmarks.systems.job import Run
from benchmarks.systems.peers import peer_environment
from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.systems.job import Job

_P = ParamSpec("_P")
_T = TypeVar("_T")

_KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""What tdpipe gives its stages; whoever is compared with them gets it, too."""
_SOURCES = (Path(__file__).parents[2], Path(tdpipe.__file__).parents[1])
"""Where a peer's interpreter finds this code: nothing of it is installed there."""
_TIMEOUT = 1_800.0


def call_in_process(function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    """Call a module's function in a process of its own; arguments, result and errors are pickled."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **named).result()


def run_in_process(job: Job, interpreter: Path) -> Run:
    """Run `job` in a process of its own, whose progress goes to stderr.

    Args:
        job: to run.
        interpreter: Python that has the job's engine.

    Raises:
        SettingsError: the job's engine cannot run with its threads.
        PipelineError: it ended without a result, or with other than the tokens asked for.
    """
    name = job.system.name
    environment = (
        os.environ
        | _KEEP_FREED_MEMORY
        | {"OMP_NUM_THREADS": str(job.threads), "PYTHONPATH": os.pathsep.join(map(str, _SOURCES))}
        | peer_environment(job, interpreter)
    )
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "run.json"
        try:
            ended = subprocess.run(
                [interpreter, "-m", "benchmarks.systems", str(result)],
                input=msgspec.json.encode(job),
                stdout=sys.stderr,
                env=environment,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PipelineError(f"{name} did not end within {_TIMEOUT:.0f} s") from error
        if ended.returncode:
            raise PipelineError(f"{name} ended with status {ended.returncode}; see above")
        run = msgspec.json.decode(result.read_bytes(), type=Run)
    expected = [each.output_tokens for each in job.requests]
    if [len(output) for output in run.outputs] != expected:
        raise PipelineError(
            f"{name} gave {sum(map(len, run.outputs))} output tokens where {sum(expected)} were due"
        )
    return run
