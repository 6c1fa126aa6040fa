"""tdpipe's engine as a measured system: the one that `tdpipe serve` starts, without HTTP."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.systems.foreign_load import ForeignLoad
from benchmarks.systems.job import BLOCK_SIZE, WARM_UP, Run, StageTime
from tdpipe.controller.start import start_engine
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import load_settings

if TYPE_CHECKING:
    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.job import Job
    from tdpipe.controller.engine import Engine
    from tdpipe.controller.snapshot import EngineSnapshot


def run_engine(job: Job) -> Run:
    """Start an engine with stages on Ray, warm it up, serve the requests and close it.

    Raises:
        TDPipeError: it does not start, or fails.
    """
    stages = job.system.stages
    settings = load_settings(
        flags={
            "model": {"path": job.checkpoint, "device": "cpu", "dtype": job.dtype},
            "pipeline": {"stages": stages, "threads_per_stage": max(1, job.threads // stages)},
            "cache": {"block_size": BLOCK_SIZE, "blocks": job.kv_blocks},
            "scheduler": {
                "policy": job.system.policy,
                "token_budget": job.system.token_budget or job.token_budget,
            },
        }
    )
    engine = start_engine(settings, lambda line: print(f"  {line}", file=sys.stderr))
    try:
        return asyncio.run(_measure(engine, job.requests))
    finally:
        engine.close()


async def _measure(engine: Engine, requests: tuple[MixRequest, ...]) -> Run:
    await _serve(engine, WARM_UP, "warm-up")
    before = engine.snapshot()
    load = ForeignLoad()
    started = time.perf_counter()
    outputs = await _serve(engine, requests, "request")
    seconds = time.perf_counter() - started
    after = engine.snapshot()
    return Run(
        seconds,
        outputs,
        load.cores(),
        _stage_times(before, after, seconds),
        after.preemptions - before.preemptions,
        after.phase_switches - before.phase_switches,
    )


async def _serve(
    engine: Engine, requests: tuple[MixRequest, ...], name: str
) -> tuple[tuple[int, ...], ...]:
    streams = [
        engine.submit(
            each.prompt, each.output_tokens, SamplingParams(), frozenset(), f"{name} {number}"
        )
        for number, each in enumerate(requests)
    ]
    return tuple([tuple([t async for delta in each for t in delta.tokens]) for each in streams])


def _stage_times(
    before: EngineSnapshot, after: EngineSnapshot, seconds: float
) -> tuple[StageTime, ...]:
    times = []
    for stage in range(len(after.stage_busy)):
        busy = after.stage_busy[stage] - before.stage_busy[stage]
        bubble = after.stage_bubble[stage] - before.stage_bubble[stage]
        times.append(StageTime(busy, bubble, seconds - busy - bubble))
    return tuple(times)
