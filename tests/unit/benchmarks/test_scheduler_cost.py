from __future__ import annotations

import pytest
from benchmarks.scheduler_cost import Cell, measure, steady_scheduler, summarise

from tdpipe.scheduling.policies.tail import requests_keep_coming
from tdpipe.simulation.candidate import POLICY_NAMES


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_the_requested_number_of_steps_is_measured(policy: str) -> None:
    costs = measure(steady_scheduler(policy, 20, 100, 2), 20, 30)
    assert len(costs.decode) + len(costs.other) == 30
    assert len(costs.rows) == len(costs.decode)


def test_the_scheduler_expects_no_more_requests_during_the_measurement() -> None:
    scheduler = steady_scheduler("adaptive", 20, 100, 2)
    measure(scheduler, 20, 30)
    assert not requests_keep_coming(scheduler._view)


def test_the_target_grows_with_the_rows_and_missing_steps_cost_nothing() -> None:
    cell = Cell("adaptive", 100, 0, 40.0, summarise([1e-4, 3e-4]), summarise([]))
    assert cell.target == pytest.approx(120.0)
    assert cell.decode.mean == pytest.approx(200.0)
    assert cell.decode.percentiles[1] == pytest.approx(200.0)
    assert (cell.other.steps, cell.other.mean) == (0, 0.0)
