"""Paced run: the real engine over paced stages, compared with a simulation of the same jobs.

Everything that a served request passes behind HTTP is real: engine, scheduler, Ray actors, messages and streams. The
throughput that is missing in comparison with a simulation without control latency is the cost of the control plane.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from tdpipe.controller.engine import Engine
from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import SettingsError
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import PipelineSettings
from tdpipe.measurement.cpu_time import CpuSeconds, TimedScheduler
from tdpipe.measurement.paced_executor import END, OUTPUT
from tdpipe.measurement.paced_stages import PacedStages
from tdpipe.measurement.steady_window import (
    StageShares,
    SteadyWindow,
    simulated_window,
    window_of,
)
from tdpipe.pipeline.in_process import start_in_process
from tdpipe.prediction.fixed_lengths import FixedLengths
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.record import RequestTimes
from tdpipe.simulation.simulator import Simulator
from tdpipe.simulation.stage_timeline import StageTimeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tdpipe.controller.snapshot import EngineSnapshot
    from tdpipe.core.latencies import Latencies
    from tdpipe.core.settings import SchedulerSettings
    from tdpipe.pipeline.stage_group import StagePipeline
    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.simulation.workload import Job

_BLOCK_SIZE = 16
_STOP = frozenset({END})


@dataclass(frozen=True, slots=True)
class PacedPlan:
    """Input of a paced run."""

    cost: CostModel
    """Cost of steps on the stages."""
    kv_tokens: int
    """Number of tokens that the KV cache holds."""
    latencies: Latencies
    """Latencies of messages. Paced stages wait for those of activations; the others are real in the run."""
    scheduler: SchedulerSettings
    jobs: Sequence[Job]

    @property
    def capacity(self) -> Capacity:
        """Capacity of the stages."""
        blocks = self.kv_tokens // _BLOCK_SIZE
        longest = max(job.prompt_tokens + job.max_tokens for job in self.jobs)
        return Capacity(blocks, _BLOCK_SIZE, min(self.scheduler.max_running, blocks), longest)


@dataclass(frozen=True, slots=True)
class PacedRun:
    """Figures of a paced run in its steady window."""

    window: SteadyWindow
    running: int
    """Number of requests that held KV at the end of the window."""
    preemptions: int
    phase_switches: int
    controller_share: float
    """Share of one core that all threads of the controller use."""
    engine_share: float
    """Share of one core that the engine's thread uses."""
    scheduler_share: float
    """Share of one core that the scheduler uses in the engine's thread."""


@dataclass(frozen=True, slots=True)
class PacedComparison:
    """A paced run and two simulations of the same jobs, over the same output tokens."""

    paced: PacedRun
    ideal: SteadyWindow
    """Simulation without latency of the controller's messages."""
    simulated: SteadyWindow
    """Simulation with the plan's latencies of the controller's messages."""

    @property
    def loss(self) -> float:
        """Share of the ideal throughput that the control plane costs."""
        return 1.0 - self.paced.window.tokens_per_second / self.ideal.tokens_per_second

    @property
    def deviation(self) -> float:
        """Relative difference to the simulated throughput; above 0 the paced engine is faster."""
        return self.paced.window.tokens_per_second / self.simulated.tokens_per_second - 1.0


def compare_paced(
    plan: PacedPlan,
    progress: Callable[[str], None],
    *,
    ramp: float,
    seconds: float,
    in_process: bool = False,
) -> PacedComparison:
    """Run and simulate the plan; arguments and errors are those of `run_paced` and `simulated_window`."""
    paced = run_paced(plan, progress, ramp=ramp, seconds=seconds, in_process=in_process)
    progress("simulating the same requests")
    tokens = (paced.window.tokens_before, paced.window.tokens_before + paced.window.tokens)
    ideal = replace(plan.latencies, step=0.0, feedback=0.0)
    return PacedComparison(
        paced, _simulate(plan, ideal, tokens), _simulate(plan, plan.latencies, tokens)
    )


def run_paced(
    plan: PacedPlan,
    progress: Callable[[str], None],
    *,
    ramp: float,
    seconds: float,
    in_process: bool = False,
) -> PacedRun:
    """Serve the jobs until the steady window ends.

    Args:
        plan: The input of the run.
        progress: Called with a line of text for each step of the work.
        ramp: Seconds before the window.
        seconds: Seconds of the window.
        in_process: Whether the stages run in threads instead of Ray actors, for tests.

    Raises:
        SettingsError: All jobs end before the window does.
        PipelineError: A stage fails.
    """
    pipeline = _start(plan, progress, in_process=in_process)
    scheduler = TimedScheduler(make_policy(plan.scheduler), plan.capacity, plan.cost)
    predictor = FixedLengths()
    engine = Engine(pipeline, scheduler, predictor, vocab_size=plan.capacity.max_context + 1)
    progress(f"serving {len(plan.jobs)} requests for {ramp + seconds:g} s")
    try:
        return asyncio.run(_Measurement(engine, scheduler, predictor, plan.jobs).run(ramp, seconds))
    finally:
        engine.close()


def _simulate(plan: PacedPlan, latencies: Latencies, tokens: tuple[int, int]) -> SteadyWindow:
    timeline = StageTimeline(plan.cost, plan.capacity.slots, latencies, keep=True)
    scheduler = Scheduler(make_policy(plan.scheduler), plan.capacity, plan.cost)
    record = Simulator(scheduler, timeline, plan.jobs).run()
    return simulated_window(record, timeline.intervals, tokens)


def _start(plan: PacedPlan, progress: Callable[[str], None], *, in_process: bool) -> StagePipeline:
    builder = PacedStages(plan.cost, plan.capacity, plan.latencies)
    settings = PipelineSettings(stages=builder.stages)
    if in_process:
        return start_in_process(settings, builder, torch.device("cpu"), progress)
    # Importing Ray takes a second.
    from tdpipe.pipeline.ray.host import start_on_ray

    return start_on_ray(settings, builder, "cpu", progress)


@dataclass(frozen=True, slots=True)
class _Mark:
    """Counters at one moment of the run."""

    time: float
    tokens: int
    snapshot: EngineSnapshot
    cpu: CpuSeconds
    scheduler: float


class _Measurement:
    """Serves the jobs and takes the marks at the start and the end of the window."""

    def __init__(
        self,
        engine: Engine,
        scheduler: TimedScheduler,
        predictor: FixedLengths,
        jobs: Sequence[Job],
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._predictor = predictor
        self._jobs = jobs
        self._times = [RequestTimes(job.arrival, job.output_tokens) for job in jobs]
        self._tokens = 0
        self._start = 0.0

    async def run(self, ramp: float, seconds: float) -> PacedRun:
        self._start = time.monotonic()
        tasks = [asyncio.create_task(self._serve(number)) for number in range(len(self._jobs))]
        try:
            await self._let_pass(ramp, tasks)
            before = self._mark()
            await self._let_pass(seconds, tasks)
            return self._run_of(before, self._mark())
        finally:
            # Closing the engine fails the unfinished streams, which ends their tasks.
            await asyncio.to_thread(self._engine.close)
            await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _let_pass(seconds: float, tasks: Sequence[asyncio.Task[None]]) -> None:
        done, unfinished = await asyncio.wait(
            tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        for each in done:
            if (error := each.exception()) is not None:
                raise error
        if not unfinished:
            problem = f"all {len(tasks)} had ended before the run was over"
            remedy = "ask for more, or for a shorter --ramp or --seconds"
            raise SettingsError("--requests", problem, remedy)

    async def _serve(self, number: int) -> None:
        job, times = self._jobs[number], self._times[number]
        if job.arrival > 0.0:
            await asyncio.sleep(self._start + job.arrival - time.monotonic())
        # Paced stages take the output length from the first token.
        prompt = (job.output_tokens, *((OUTPUT,) * (job.prompt_tokens - 1)))
        self._predictor.lengths = job.lengths
        stream = self._engine.submit(prompt, job.max_tokens, SamplingParams(), _STOP, str(number))
        async for delta in stream:
            now = time.monotonic() - self._start
            times.first = min(times.first, now)
            if delta.finish is not None:
                times.end = now
            self._tokens += len(delta.tokens)

    def _mark(self) -> _Mark:
        return _Mark(
            time.monotonic() - self._start,
            self._tokens,
            self._engine.snapshot(),
            CpuSeconds.now(),
            self._scheduler.seconds,
        )

    def _run_of(self, before: _Mark, after: _Mark) -> PacedRun:
        seconds = after.time - before.time
        old, new = before.snapshot, after.snapshot
        stages = []
        for stage in range(len(new.stage_busy)):
            busy = (new.stage_busy[stage] - old.stage_busy[stage]) / seconds
            bubble = (new.stage_bubble[stage] - old.stage_bubble[stage]) / seconds
            stages.append(StageShares(busy, bubble, max(0.0, 1.0 - busy - bubble)))
        return PacedRun(
            window_of(before.time, after.time, (before.tokens, after.tokens), stages, self._times),
            running=new.running,
            preemptions=new.preemptions - old.preemptions,
            phase_switches=new.phase_switches - old.phase_switches,
            controller_share=(after.cpu.process - before.cpu.process) / seconds,
            engine_share=(after.cpu.engine - before.cpu.engine) / seconds,
            scheduler_share=(after.scheduler - before.scheduler) / seconds,
        )
