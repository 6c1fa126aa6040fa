"""The interface to a group of running stages, and the pipeline over any such group.

Threads and Ray actors differ in how messages reach the stages and in how a failure is noticed. Collecting reports,
waking and the step timeout are the same for both and are in this module.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from tdpipe.core.errors import PipelineError
from tdpipe.pipeline.step_ledger import StepLedger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.core.attempt import Attempt
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.step import StageReport, Step
    from tdpipe.pipeline.base import StageDevice, StepResult


class StageGroup(Protocol):
    """A group of stages that run their loops."""

    def send(self, step: Step) -> None:
        """Send a step to every stage without blocking."""

    def receive(self, timeout: float | None) -> Sequence[StageReport]:
        """Return the reports that have arrived.

        If there are none, the call waits for one or for `interrupt`, up to `timeout` seconds. None is no limit.

        Raises:
            PipelineError: a stage failed.
        """

    def interrupt(self) -> None:
        """Make the blocked `receive`, or else the next one, return. Any thread may call this."""

    def close(self) -> None:
        """Stop the stages within seconds. Repeated calls have no effect."""


class StagePipeline:
    """The `Pipeline` over a group of stages."""

    def __init__(
        self,
        group: StageGroup,
        attempt: Attempt,
        devices: tuple[StageDevice, ...],
        capacity: Capacity,
        step_timeout: float,
    ) -> None:
        self.attempt = attempt
        self.stages = stages = len(devices)
        self.capacity = capacity
        self.devices = devices
        self._group = group
        self._ledger = StepLedger(attempt, stages)
        self._step_timeout = step_timeout
        self._woken = threading.Event()

    def submit(self, step: Step) -> None:
        self._ledger.submit(step.id, time.monotonic())
        self._group.send(step)

    def poll(self, timeout: float | None) -> list[StepResult]:
        now = time.monotonic()
        end = None if timeout is None else now + timeout
        while True:
            since = self._ledger.waiting_since()
            step_end = None if since is None else since + self._step_timeout
            limits = [limit for limit in (end, step_end) if limit is not None]
            if self._woken.is_set():
                limits = [now]
            reports = self._group.receive(max(0.0, min(limits) - now) if limits else None)
            for report in reports:
                self._ledger.record(report)
            now = time.monotonic()
            results = self._ledger.completed(now)
            if results:
                return results
            if self._woken.is_set():
                self._woken.clear()
                return []
            if step_end is not None and now >= step_end:
                raise PipelineError(
                    f"no result for {self._step_timeout:g} s: {self._ledger.describe_overdue()}; if a "
                    "step may take that long, raise pipeline.step_timeout"
                )
            if end is not None and now >= end:
                return []

    def wake(self) -> None:
        self._woken.set()
        self._group.interrupt()

    def close(self) -> None:
        self._group.close()
