from __future__ import annotations

import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.core.step import Phase
from tdpipe.measurement.steady_window import (
    StageShares,
    SteadyWindow,
    simulated_window,
    window_of,
)
from tdpipe.simulation.record import KVSample, RequestTimes, SimulationRecord
from tdpipe.simulation.stage_timeline import Interval


def test_only_tokens_of_the_window_count() -> None:
    requests = [
        RequestTimes(0.0, 11, first=1.0, end=3.0),
        RequestTimes(0.0, 11, first=4.0, end=12.0),
        RequestTimes(1.0, 1, first=5.0, end=5.0),
        RequestTimes(0.0, 5),
    ]
    window = window_of(2.0, 10.0, (100, 180), [StageShares(1.0, 0.0, 0.0)], requests)
    assert window.tokens_per_second == pytest.approx(10.0)
    assert window.ttft[0] == pytest.approx(4.0)
    assert window.tpot == pytest.approx((0.2,) * 3)


def test_a_window_without_requests_has_no_percentiles() -> None:
    window = window_of(0.0, 1.0, (0, 1), [], [])
    assert (window.ttft, window.tpot) == ((), ())


def window_between(tokens: tuple[int, int]) -> SteadyWindow:
    """Simulate one step of ten tokens per second; stage 0 computes half of the time, stage 1 always."""
    intervals = [
        Interval(n, Phase.DECODE, 10, (float(n), n + 0.5), (n + 0.5, n + 1.5)) for n in range(10)
    ]
    record = SimulationRecord(
        10.0, (), 100, 0, (5.0, 10.0), 0, 0, tuple(KVSample(n + 1.5, 1, 10) for n in range(10)), 9
    )
    return simulated_window(record, intervals, tokens)


def test_a_simulation_is_measured_between_the_same_tokens() -> None:
    window = window_between((20, 70))
    assert (window.begin, window.seconds, window.tokens) == pytest.approx((2.5, 5.0, 50))
    assert [stage.busy for stage in window.stages] == pytest.approx([0.5, 1.0])
    assert [stage.bubble for stage in window.stages] == pytest.approx([0.5, 0.0])


def test_a_window_in_which_no_step_ended_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^--seconds: only 3 output tokens came"):
        window_between((22, 25))
