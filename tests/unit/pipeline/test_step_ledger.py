from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tdpipe.core.attempt import FIRST_ATTEMPT, Attempt
from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StageReport, StepOutput
from tdpipe.pipeline.step_ledger import StepLedger


def report(step: int, stage: int, *, last: bool = False) -> StageReport:
    output = StepOutput(step, np.asarray([step], np.int32)) if last else None
    return StageReport(FIRST_ATTEMPT, step, stage, busy=step + stage / 10, output=output)


def test_a_step_is_complete_when_every_stage_has_reported_it() -> None:
    ledger = StepLedger(FIRST_ATTEMPT, 2)
    ledger.submit(0, now=0.0)
    ledger.record(report(0, 1, last=True))
    assert ledger.completed(1.0) == []
    ledger.record(report(0, 0))
    (result,) = ledger.completed(2.0)
    assert result.busy == (0.0, 0.1)
    assert result.output.tokens.tolist() == [0]
    assert ledger.in_flight == 0


def test_results_come_in_the_order_of_submission() -> None:
    ledger = StepLedger(FIRST_ATTEMPT, 1)
    for step in (0, 1, 2):
        ledger.submit(step, now=0.0)
    ledger.record(report(1, 0, last=True))
    assert ledger.completed(1.0) == []
    ledger.record(report(0, 0, last=True))
    assert [result.output.step for result in ledger.completed(2.0)] == [0, 1]


@pytest.mark.parametrize("unexpected", [report(7, 0), report(0, 0), report(0, 2)])
def test_an_unexpected_report_is_an_error(unexpected: StageReport) -> None:
    ledger = StepLedger(FIRST_ATTEMPT, 2)
    ledger.submit(0, now=0.0)
    ledger.record(report(0, 0))
    with pytest.raises(PipelineError, match="no report was due"):
        ledger.record(unexpected)


def test_a_report_of_another_attempt_is_dropped() -> None:
    ledger = StepLedger(FIRST_ATTEMPT, 1)
    ledger.submit(0, now=0.0)
    for epoch, attempt in ((1, 2), (2, 1)):
        ledger.record(replace(report(0, 0, last=True), attempt=Attempt(epoch, attempt)))
    assert ledger.completed(1.0) == []


def test_waiting_starts_with_the_last_result_or_with_the_first_submission_after_idleness() -> None:
    ledger = StepLedger(FIRST_ATTEMPT, 1)
    assert ledger.waiting_since() is None
    ledger.submit(0, now=5.0)
    ledger.submit(1, now=6.0)
    assert ledger.waiting_since() == 5.0
    ledger.record(report(0, 0, last=True))
    ledger.completed(now=8.0)
    assert ledger.waiting_since() == 8.0
    ledger.record(report(1, 0, last=True))
    ledger.completed(now=9.0)
    assert ledger.waiting_since() is None


def test_an_overdue_step_is_named_with_the_stages_that_have_not_reported() -> None:
    ledger = StepLedger(FIRST_ATTEMPT, 3)
    ledger.submit(4, now=0.0)
    ledger.record(report(4, 1))
    assert ledger.describe_overdue() == "step 4 has no report of stage 0, 2"
