"""Runs each measurement in a fresh process, so that it inherits no threads, memory or Ray of another."""

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
from benchmarks.systems.external_engines import engine_environment
from benchmarks.systems.run import RunResult
from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.systems.run import RunConfig

_P = ParamSpec("_P")
_T = TypeVar("_T")

_KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""Variables that tdpipe sets for its stages. All systems get them, so that the comparison is fair."""
_SOURCES = (Path(__file__).parents[2], Path(tdpipe.__file__).parents[1])
"""Folders of this code, which is not installed in the environments of external engines."""
_TIMEOUT = 1_800.0


def call_in_process(function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    """Call a module-level function in a fresh process; arguments, result and errors are pickled."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **named).result()


def run_in_process(config: RunConfig, interpreter: Path) -> RunResult:
    """Measure a system in a fresh process, which prints its progress to stderr.

    Args:
        config: Run to measure.
        interpreter: Python interpreter that has the engine of the system.

    Raises:
        SettingsError: the engine has more stages than threads.
        PipelineError: the process ended without a result, or generated too many or too few tokens.
    """
    name = config.system.name
    environment = (
        os.environ
        | _KEEP_FREED_MEMORY
        | {
            "OMP_NUM_THREADS": str(config.threads),
            "PYTHONPATH": os.pathsep.join(map(str, _SOURCES)),
        }
        | engine_environment(config, interpreter)
    )
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "run.json"
        try:
            ended = subprocess.run(
                [interpreter, "-m", "benchmarks.systems", str(result)],
                input=msgspec.json.encode(config),
                stdout=sys.stderr,
                env=environment,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PipelineError(f"{name} did not finish within {_TIMEOUT:.0f} s") from error
        if ended.returncode:
            raise PipelineError(f"{name} ended with status {ended.returncode}; see above")
        run = msgspec.json.decode(result.read_bytes(), type=RunResult)
    expected = [each.output_tokens for each in config.requests]
    if [len(output) for output in run.outputs] != expected:
        raise PipelineError(
            f"{name} generated {sum(map(len, run.outputs))} output tokens instead of {sum(expected)}"
        )
    return run
