from __future__ import annotations

import pytest
from benchmarks.scheduler_cost import Cell, measure, steady_scheduler, summarise

from tdpipe.scheduling.policies.tail import requests_keep_coming
from tdpipe.simulation.candidate import POLICY_NAMES


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_as_many_steps_are_measured_as_are_asked_for(policy: str) -> None:
    costs = measure(steady_scheduler(policy, 20, 100, 2), 20, 30)
    assert len(costs.decode) + len(costs.other) == 30
    assert len(costs.rows) == len(costs.decode)


def test_work_counts_as_finite_while_it_is_measured() -> None:
    scheduler = steady_scheduler("adaptive", 20, 100, 2)
    measure(scheduler, 20, 30)
    assert not requests_keep_coming(scheduler._view)


def test_the_aim_grows_with_the_rows_and_what_was_not_seen_costs_nothing() -> None:
    cell = Cell("adaptive", 100, 0, 40.0, summarise([1e-4, 3e-4]), summarise([]))
    assert cell.aim == pytest.approx(120.0)
    assert cell.decode.mean == pytest.approx(200.0)
    assert cell.decode.percentiles[1] == pytest.approx(200.0)
    assert (cell.other.steps, cell.other.mean) == (0, 0.0)
