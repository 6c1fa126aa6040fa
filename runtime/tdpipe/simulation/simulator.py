"""Discrete events over the real scheduler: what the engine's loop does, against a simulated clock.

The scheduler is driven exactly as the engine drives it: it is asked for steps until it wants to wait, then the next
result or arrival is taken. Only it decides; the simulator knows the lengths and the time.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from tdpipe.core.request import Request
from tdpipe.core.step import Step
from tdpipe.scheduling.answers import WaitUntil
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
        scheduler: fresh.
        timeline: of the scheduler's stages and slots.
        jobs: in any order of arrival.
        forecast_every: steps after which the KV forecast is noted; 0 is never.
    """

    def __init__(
        self,
        scheduler: Scheduler[Any],
        timeline: StageTimeline,
        jobs: Sequence[Job],
        forecast_every: int = 0,
    ) -> None:
        self._scheduler = scheduler
        self._timeline = timeline
        self._jobs = jobs
        self._arrivals = deque(sorted(range(len(jobs)), key=lambda number: jobs[number].arrival))
        self._results: deque[tuple[float, Step, IntArray, tuple[float, ...]]] = deque()
        slots = scheduler.capacity.slots
        self._end = np.zeros(slots, dtype=np.int32)
        """[slots] position of the end token."""
        self._times = [RequestTimes(job.arrival, job.output_tokens) for job in jobs]
        self._unanswered = {str(number) for number in range(len(jobs))}
        """Requests of which no token has come."""
        self._kv: list[KVSample] = []
        self._idle = 0.0
        self._forecast_every = forecast_every

    def run(self) -> SimulationRecord:
        """Serve all jobs.

        Raises:
            RequestError: a job fits neither context nor KV cache.
            RuntimeError: the scheduler waits for what will not come.
        """
        now = 0.0
        while self._arrivals or self._scheduler.state.sequences:
            self._admit(now)
            answer = self._scheduler.next_step(now)
            if isinstance(answer, Step):
                self._issue(answer, now)
                continue
            limit = answer.time if isinstance(answer, WaitUntil) else math.inf
            then = max(now, self._next_event(limit))
            self._idle += 0.0 if self._results else then - now
            now = then
            while self._results and self._results[0][0] <= now:
                self._book(now)
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
        arrival, seconds = self._timeline.issue(step, now)
        for start in step.starts:
            sequence = self._scheduler.state.slots.sequences[start.slot]
            assert sequence is not None
            job = self._jobs[int(sequence.request.id)]
            self._end[start.slot] = job.prompt_tokens + job.output_tokens - 1
        sampled = step.slots[step.sample]
        positions = (step.first + step.counts)[step.sample]
        tokens = np.where(positions >= self._end[sampled], _END, _TOKEN).astype(np.int32)
        self._results.append((arrival, step, tokens, seconds))

    def _next_event(self, limit: float) -> float:
        if self._results:
            limit = min(limit, self._results[0][0])
        if self._arrivals:
            limit = min(limit, self._jobs[self._arrivals[0]].arrival)
        if math.isinf(limit):
            raise RuntimeError("the scheduler waits for what will not come")
        return limit

    def _book(self, now: float) -> None:
        _, step, tokens, seconds = self._results.popleft()
        emission = self._scheduler.on_result(step.id, tokens, seconds, now)
        answered = self._unanswered.intersection(emission.request_ids)
        for name in answered:
            self._times[int(name)].first = now
        self._unanswered -= answered
        for name in emission.finished:
            self._times[int(name)].end = now
        state = self._scheduler.state
        every = self._forecast_every
        peak = self._scheduler.forecast_peak() if every and step.id % every == 0 else None
        self._kv.append(KVSample(now, state.pool.used, len(emission.request_ids), peak))
