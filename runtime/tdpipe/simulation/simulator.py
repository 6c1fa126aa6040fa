"""Discrete-event simulation of the engine's loop with the real scheduler and a simulated clock.

The scheduler is driven exactly as the engine drives it: it is asked for steps until it waits, and then the next result
or arrival is handled. All decisions are the scheduler's; the simulator only knows the output lengths and the time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.request import Request
from tdpipe.core.step import Step
from tdpipe.simulation.record import KVSample, RequestTimes, SimulationRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.scheduler import Scheduler
    from tdpipe.simulation.stage_timeline import StageTimeline
    from tdpipe.simulation.workload import Job

_TOKEN, _END = 0, 1
_STOP = frozenset({_END})


class Simulator:
    """One run of jobs through a scheduler.

    Args:
        scheduler: A scheduler that has no requests yet.
        timeline: A fresh timeline with the scheduler's stages and slots.
        jobs: The jobs to serve, in any order.
        forecast_interval: Number of steps between recorded KV forecasts; 0 records none.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        timeline: StageTimeline,
        jobs: Sequence[Job],
        forecast_interval: int = 0,
    ) -> None:
        self._scheduler = scheduler
        self._timeline = timeline
        self._jobs = jobs
        self._arrivals = deque(sorted(range(len(jobs)), key=lambda number: jobs[number].arrival))
        self._results: deque[tuple[float, Step, IntArray]] = deque()
        slots = scheduler.capacity.slots
        self._end = np.zeros(slots, dtype=np.int32)
        """[slots] position of the end token."""
        self._times = [RequestTimes(job.arrival, job.output_tokens) for job in jobs]
        self._without_token = {str(number) for number in range(len(jobs))}
        """Ids of the requests that have no token yet."""
        self._kv: list[KVSample] = []
        self._idle = 0.0
        self._forecast_interval = forecast_interval

    def run(self) -> SimulationRecord:
        """Serve all jobs.

        Raises:
            RequestError: A job fits neither the context nor the KV cache.
            RuntimeError: The scheduler waits for an event that cannot happen.
        """
        now = 0.0
        while self._arrivals or self._scheduler.state.sequences:
            self._admit(now)
            answer = self._scheduler.next_step(now)
            if isinstance(answer, Step):
                self._issue(answer, now)
                continue
            next_time = max(now, self._next_event())
            self._idle += 0.0 if self._results else next_time - now
            now = next_time
            while self._results and self._results[0][0] <= now:
                self._complete(now)
        return SimulationRecord(
            seconds=max((times.end for times in self._times), default=0.0),
            requests=tuple(self._times),
            output_tokens=sum(job.output_tokens for job in self._jobs),
            prompt_tokens=sum(job.prompt_tokens for job in self._jobs),
            stage_busy=tuple(self._timeline.busy),
            phase_switches=self._scheduler.state.phase_switches,
            preemptions=self._scheduler.state.preemptions,
            kv=tuple(self._kv),
            kv_blocks=self._scheduler.capacity.blocks,
            idle=self._idle,
        )

    def _admit(self, now: float) -> None:
        while self._arrivals and self._jobs[self._arrivals[0]].arrival <= now:
            number = self._arrivals.popleft()
            job = self._jobs[number]
            prompt = (_TOKEN,) * job.prompt_tokens
            request = Request(
                str(number), prompt, job.max_tokens, job.lengths, stop_token_ids=_STOP
            )
            self._scheduler.add(request, now)

    def _issue(self, step: Step, now: float) -> None:
        arrival, _ = self._timeline.issue(step, now)
        for start in step.starts:
            sequence = self._scheduler.state.slots.sequences[start.slot]
            assert sequence is not None
            job = self._jobs[int(sequence.request.id)]
            self._end[start.slot] = job.prompt_tokens + job.output_tokens - 1
        sampled = step.slots[step.sample]
        positions = (step.first + step.counts)[step.sample]
        tokens = np.where(positions >= self._end[sampled], _END, _TOKEN).astype(np.int32)
        self._results.append((arrival, step, tokens))

    def _next_event(self) -> float:
        """Return the time of the next result or arrival."""
        times = [self._results[0][0]] if self._results else []
        if self._arrivals:
            times.append(self._jobs[self._arrivals[0]].arrival)
        if not times:
            raise RuntimeError(
                "the scheduler waits, but neither a result nor an arrival is to come"
            )
        return min(times)

    def _complete(self, now: float) -> None:
        _, step, tokens = self._results.popleft()
        emission = self._scheduler.on_result(step.id, tokens)
        started = self._without_token.intersection(emission.request_ids)
        for name in started:
            self._times[int(name)].first = now
        self._without_token -= started
        for name in emission.finished:
            self._times[int(name)].end = now
        state = self._scheduler.state
        interval = self._forecast_interval
        peak = self._scheduler.forecast_peak() if interval and step.id % interval == 0 else None
        self._kv.append(KVSample(now, state.pool.used, len(emission.request_ids), peak))
