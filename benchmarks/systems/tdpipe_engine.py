"""Runs the engine that `tdpipe serve` starts, without HTTP."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.systems.background_load import BackgroundLoad
from benchmarks.systems.recording_pipeline import RecordingPipeline
from benchmarks.systems.run import BLOCK_SIZE, WARM_UP_REQUESTS, RunResult, StageTime, StepTime
from tdpipe.controller.engine import Engine
from tdpipe.controller.start import plan_stages, prepare_engine
from tdpipe.core.profile import read_profile_file
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import load_settings
from tdpipe.scheduling.cost_model import profiled_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.run import RunConfig
    from tdpipe.controller.snapshot import EngineSnapshot
    from tdpipe.controller.synthetic_steps import ExecutedStep
    from tdpipe.core.settings import Settings
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages


def engine_settings(config: RunConfig) -> Settings:
    """Return the settings with which the engine is started.

    Raises:
        SettingsError: the configuration has an invalid value.
    """
    stages = config.system.stages
    return load_settings(
        flags={
            "model": {"path": config.checkpoint, "device": config.device, "dtype": config.dtype},
            "pipeline": {
                "host": config.host,
                "stages": stages,
                "threads_per_stage": max(1, config.threads // stages),
            },
            "cache": {"block_size": BLOCK_SIZE, "blocks": config.kv_blocks},
            "scheduler": {
                "policy": config.system.policy,
                "token_budget": config.system.token_budget or config.token_budget,
                "profile": config.profile,
            },
        }
    )


def run_engine(config: RunConfig, stages: CheckpointStages | None = None) -> RunResult:
    """Start an engine, warm it up, serve the requests and close it.

    Args:
        config: Run to measure.
        stages: Stages of the checkpoint; None plans them.

    Raises:
        TDPipeError: the engine does not start, or it fails.
    """
    settings = engine_settings(config)
    parts = prepare_engine(
        settings,
        plan_stages(settings) if stages is None else stages,
        lambda line: print(f"  {line}", file=sys.stderr),
    )
    recorder = RecordingPipeline(parts.pipeline)
    engine = Engine(recorder, parts.scheduler, parts.predictor, parts.vocab_size)
    try:
        return asyncio.run(_measure(engine, recorder, config))
    finally:
        engine.close()


async def _measure(engine: Engine, recorder: RecordingPipeline, config: RunConfig) -> RunResult:
    await _serve(engine, WARM_UP_REQUESTS, "warm-up")
    before, warmed_up = engine.snapshot(), len(recorder.executed)
    load = BackgroundLoad()
    started = time.perf_counter()
    outputs = await _serve(engine, config.requests, "request")
    seconds = time.perf_counter() - started
    after = engine.snapshot()
    return RunResult(
        seconds,
        outputs,
        load.cores(),
        _stage_times(before, after, seconds),
        after.preemptions - before.preemptions,
        after.phase_switches - before.phase_switches,
        _step_times(recorder.executed[warmed_up:], config.profile),
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
