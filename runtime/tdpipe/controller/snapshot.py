"""State of the engine at one moment, for metrics and logs, and the clock that measures how busy the stages are.

The clock's sums are counters that metrics take rates of, so they must never decrease. Other threads read them at any
moment.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdpipe.core.step import Phase

FIRST_PHASE = Phase.PREFILL
"""Phase before the first step, which can only be prefill."""


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """State of queue, KV cache, phase and stages. Counters start at 0 when the engine starts."""

    waiting: int = 0
    """Number of requests that hold no KV cache."""
    running: int = 0
    """Number of requests that hold KV cache."""
    kv_blocks: int = 0
    """Number of blocks of a stage's KV cache."""
    kv_blocks_used: int = 0
    phase: Phase = FIRST_PHASE
    """Phase of the last step."""
    phase_switches: int = 0
    """Number of switches from prefill to decode and back; mixed steps do not count."""
    preemptions: int = 0
    non_finite_logits: int = 0
    """Number of requests that ended because their logits were not finite."""
    restarts: int = 0
    """Number of pipelines that have replaced a failed one."""
    stage_busy: tuple[float, ...] = ()
    """[stages] seconds of computing."""
    stage_bubble: tuple[float, ...] = ()
    """[stages] seconds of waiting while steps were in flight."""


class StageClock:
    """Sums the computing time of each stage, and its waiting time while steps were in flight.

    Time in which a stage did not compute while steps were in flight is bubble. The rest of the time is idle.

    Args:
        stages: The number of stages.
    """

    def __init__(self, stages: int) -> None:
        self.busy = (0.0,) * stages
        """[stages] seconds of computing."""
        self.bubble = (0.0,) * stages
        """[stages] seconds of waiting while steps were in flight, up to the last result. It is exact when nothing is in
        flight; otherwise it may include time in which stages computed later steps."""
        self._active = 0.0
        self._active_since: float | None = None

    def started(self, now: float) -> None:
        """Note that a step was issued at time `now`."""
        if self._active_since is None:
            self._active_since = now

    def stopped(self, now: float) -> None:
        """Note that the pipeline failed at time `now`, so that no step is in flight."""
        if self._active_since is not None:
            self._active += now - self._active_since
            self._active_since = None

    def completed(self, busy: tuple[float, ...], in_flight: int, now: float) -> None:
        """Note that a step completed at time `now`.

        Args:
            busy: [stages] seconds that the step was computed for.
            in_flight: The number of steps that are still in flight.
            now: Seconds of the controller's clock.
        """
        if self._active_since is not None:
            self._active += now - self._active_since
        self._active_since = now if in_flight else None
        self.busy = tuple(map(sum, zip(self.busy, busy, strict=True)))
        # A stage may report more than the time since the last result, as it computed part of the step before that.
        self.bubble = tuple(
            max(before, self._active - seconds)
            for before, seconds in zip(self.bubble, self.busy, strict=True)
        )
