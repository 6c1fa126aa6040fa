from __future__ import annotations

import pytest
from benchmarks.step_errors import phase_errors
from benchmarks.systems.run import StepTime

from tdpipe.core.step import Phase


def test_errors_are_reported_by_phase_and_stage_and_weighted_by_time() -> None:
    steps = [
        StepTime(Phase.DECODE, 10, (1.0, 1.0), (1.0, 1.0)),
        StepTime(Phase.PREFILL, 500, (2.0, 1.0), (3.0, 1.0)),
        StepTime(Phase.PREFILL, 300, (6.0, 1.0), (6.0, 0.5)),
    ]
    prefill, decode = phase_errors(steps)
    assert (prefill.phase, prefill.steps, prefill.tokens) == (Phase.PREFILL, 2, 400.0)
    assert prefill.ratios == pytest.approx((9 / 8, 1.5 / 2))
    assert prefill.share == pytest.approx(10 / 12)
    assert prefill.mean_error == pytest.approx((0.5 + 0.0 + 0.0 + 0.5) / 4)
    assert decode.ratios == (1.0, 1.0)
    assert decode.mean_error == 0.0
