"""tdpipe's engine as a measured system: the one that `tdpipe serve` starts, without HTTP."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.systems.foreign_load import ForeignLoad
from benchmarks.systems.job import BLOCK_SIZE, WARM_UP, Run, StageTime, StepTime
from benchmarks.systems.step_watch import StepWatch
from tdpipe.controller.engine import Engine
from tdpipe.controller.start import plan_stages, prepare_engine
from tdpipe.core.profile import read_profile_file
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import load_settings
from tdpipe.scheduling.cost_model import profiled_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.job import Job
    from tdpipe.controller.snapshot import EngineSnapshot
    from tdpipe.controller.synthetic_steps import ExecutedStep
    from tdpipe.core.settings import Settings
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages


def engine_settings(job: Job) -> Settings:
    """What the engine is started with.

    Raises:
        SettingsError: the job asks for what there is not.
    """
    stages = job.system.stages
    return load_settings(
        flags={
            "model": {"path": job.checkpoint, "device": job.device, "dtype": job.dtype},
            "pipeline": {
                "host": job.host,
                "stages": stages,
                "threads_per_stage": max(1, job.threads // stages),
            },
            "cache": {"block_size": BLOCK_SIZE, "blocks": job.kv_blocks},
            "scheduler": {
                "policy": job.system.policy,
                "token_budget": job.system.token_budget or job.token_budget,
                "profile": job.profile,
            },
        }
    )


def run_engine(job: Job, stages: CheckpointStages | None = None) -> Run:
    """Start an engine, warm it up, serve the requests and close it.

    Args:
        job: what to serve, and how.
        stages: stages of the job's checkpoint; None plans them.

    Raises:
        TDPipeError: it does not start, or fails.
    """
    settings = engine_settings(job)
    parts = prepare_engine(
        settings,
        plan_stages(settings) if stages is None else stages,
        lambda line: print(f"  {line}", file=sys.stderr),
    )
    watch = StepWatch(parts.pipeline)
    engine = Engine(watch, parts.scheduler, parts.predictor, parts.vocab_size)
    try:
        return asyncio.run(_measure(engine, watch, job))
    finally:
        engine.close()


async def _measure(engine: Engine, watch: StepWatch, job: Job) -> Run:
    await _serve(engine, WARM_UP, "warm-up")
    before, warmed_up = engine.snapshot(), len(watch.executed)
    load = ForeignLoad()
    started = time.perf_counter()
    outputs = await _serve(engine, job.requests, "request")
    seconds = time.perf_counter() - started
    after = engine.snapshot()
    return Run(
        seconds,
        outputs,
        load.cores(),
        _stage_times(before, after, seconds),
        after.preemptions - before.preemptions,
        after.phase_switches - before.phase_switches,
        _step_times(watch.executed[warmed_up:], job.profile),
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


def _step_times(executed: Sequence[ExecutedStep], profile: str | None) -> tuple[StepTime, ...]:
    if profile is None:
        return ()
    cost = profiled_cost(read_profile_file(Path(profile), "--profile"))
    return tuple(
        StepTime(each.step.phase, each.step.tokens, each.busy, cost.stage_seconds(each.step))
        for each in executed
    )
