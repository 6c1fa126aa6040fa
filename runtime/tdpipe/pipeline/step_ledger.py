"""Which step waits for which stage's report.

Kept apart from sockets and clocks, so that the bookkeeping can be tested with plain values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdpipe.core.errors import PipelineError
from tdpipe.pipeline.base import StepResult

if TYPE_CHECKING:
    from tdpipe.core.step import StageReport, StepOutput


@dataclass(slots=True)
class _OpenStep:
    busy: dict[int, float] = field(default_factory=dict)
    output: StepOutput | None = None


class StepLedger:
    """Collects reports until a step has every stage's, and gives steps out in order of issue."""

    def __init__(self, stages: int) -> None:
        self._stages = stages
        self._open: dict[int, _OpenStep] = {}
        self._progress = 0.0

    @property
    def in_flight(self) -> int:
        """Steps submitted and not yet given out."""
        return len(self._open)

    def submit(self, step: int, now: float) -> None:
        if not self._open:
            self._progress = now
        self._open[step] = _OpenStep()

    def record(self, report: StageReport) -> None:
        """Note a stage's report.

        Raises:
            PipelineError: nobody waits for it.
        """
        step = self._open.get(report.step)
        if step is None or report.stage in step.busy or report.stage >= self._stages:
            raise PipelineError(
                f"stage {report.stage} reported step {report.step}, for which no report was due"
            )
        step.busy[report.stage] = report.busy
        if report.output is not None:
            step.output = report.output

    def completed(self, now: float) -> list[StepResult]:
        """Take out the completed steps that no earlier open step precedes.

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
            self._progress = now
        return results

    def waiting_since(self) -> float | None:
        """Time of the last result or, if later, of the first issue since; None if all are done."""
        return self._progress if self._open else None

    def overdue(self) -> str:
        """Names the oldest step and the stages whose report is missing."""
        number, step = next(iter(self._open.items()))
        missing = [str(stage) for stage in range(self._stages) if stage not in step.busy]
        return f"step {number} has no report of stage {', '.join(missing)}"
