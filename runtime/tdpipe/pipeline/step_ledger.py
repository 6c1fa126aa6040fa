"""The record of the steps in flight and of the stages that have reported them.

It uses neither sockets nor clocks, so that it can be tested with plain values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdpipe.core.errors import PipelineError
from tdpipe.pipeline.base import StepResult

if TYPE_CHECKING:
    from tdpipe.core.attempt import Attempt
    from tdpipe.core.step import StageReport, StepOutput


@dataclass(slots=True)
class _OpenStep:
    busy: dict[int, float] = field(default_factory=dict)
    output: StepOutput | None = None


class StepLedger:
    """Collects the reports of every stage for each step and returns results in the order of submission."""

    def __init__(self, attempt: Attempt, stages: int) -> None:
        self._attempt = attempt
        self._stages = stages
        self._open: dict[int, _OpenStep] = {}
        self._last_progress = 0.0

    @property
    def in_flight(self) -> int:
        """Number of steps that are submitted and whose results are not yet returned."""
        return len(self._open)

    def submit(self, step: int, now: float) -> None:
        if not self._open:
            self._last_progress = now
        self._open[step] = _OpenStep()

    def record(self, report: StageReport) -> None:
        """Record the report of a stage. A report of another attempt is dropped.

        Raises:
            PipelineError: no such report is expected.
        """
        if report.attempt != self._attempt:
            return
        step = self._open.get(report.step)
        if step is None or report.stage in step.busy or report.stage >= self._stages:
            raise PipelineError(
                f"stage {report.stage} reported step {report.step}, for which no report was due"
            )
        step.busy[report.stage] = report.busy
        if report.output is not None:
            step.output = report.output

    def completed(self, now: float) -> list[StepResult]:
        """Remove and return the completed steps that have no open step before them.

        Raises:
            PipelineError: the last stage reported a step without its output.
        """
        results = []
        for number, step in list(self._open.items()):
            if len(step.busy) < self._stages:
                break
            if step.output is None:
                raise PipelineError(f"the last stage reported step {number} without its output")
            del self._open[number]
            busy = tuple(step.busy[stage] for stage in range(self._stages))
            results.append(StepResult(step.output, busy))
        if results:
            self._last_progress = now
        return results

    def waiting_since(self) -> float | None:
        """Return the time since which a result is awaited, or None if no step is in flight.

        It is the time of the last result, or of a submission while no step was in flight, whichever is later.
        """
        return self._last_progress if self._open else None

    def describe_overdue(self) -> str:
        """Name the oldest step in flight and the stages whose report is missing."""
        number, step = next(iter(self._open.items()))
        missing = [str(stage) for stage in range(self._stages) if stage not in step.busy]
        return f"step {number} has no report of stage {', '.join(missing)}"
