"""What policies see of the state."""

from __future__ import annotations

import numpy as np

from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.step import Step
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.forecast import KVForecast
from tdpipe.scheduling.policies.hybrid import HybridPolicy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.scheduling.view import View


def test_a_prefill_in_flight_and_a_partial_one_are_forecast_as_if_they_had_ended() -> None:
    capacity, cost = (
        Capacity(blocks=64, block_size=1, slots=4, max_context=64),
        proportional_cost(2),
    )
    scheduler = Scheduler(HybridPolicy(16), capacity, cost)
    for name in ("whole", "partial"):
        scheduler.add(Request(name, (3,) * 10, 30, LengthDistribution((10, 30))), 0.0)
    forecast = KVForecast(capacity.max_context, capacity.block_size)
    expected = forecast.of_waiting(list(scheduler.state.waiting)).total()
    step = scheduler.next_step(0.0)
    assert isinstance(step, Step)
    assert step.counts.tolist() == [10, 6]
    demand = View(scheduler.state, 2, cost, forecast).running_demand()
    assert np.array_equal(demand.mean, expected.mean)
    assert np.array_equal(demand.variance, expected.variance)
