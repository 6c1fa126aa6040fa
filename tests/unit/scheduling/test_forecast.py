from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import OUTCOMES, LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.step import Step
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.forecast import KVForecast
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.scheduling.sequence import Sequence, outcomes_of

Work = list[tuple[int, int]]


@settings(max_examples=200, deadline=None)
@given(
    work=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=10),
    block_size=st.sampled_from((1, 4, 16)),
)
def test_with_oracle_lengths_the_forecast_equals_the_later_use(work: Work, block_size: int) -> None:
    scheduler = Scheduler(
        TemporalPolicy(4096, 0.0, 1.0), Capacity(2000, block_size, 10, 128), proportional_cost(1)
    )
    for number, (prompt, length) in enumerate(work):
        lengths = LengthDistribution((length,))
        scheduler.add(Request(str(number), (3,) * prompt, length, lengths), 0.0)

    def run_step() -> int:
        step = scheduler.next_step(0.0)
        assert isinstance(step, Step)
        used = scheduler.state.pool.used
        tokens = np.full(int(step.sample.sum()), 9, dtype=np.int32)
        scheduler.on_result(step.id, tokens)
        return used

    run_step()
    slots = scheduler.state.slots
    held = slots.occupied
    generated = slots.length[held] - slots.prompt[held]
    bound = slots.limit[held] - slots.prompt[held]
    forecast = KVForecast(128, block_size, skew=0)
    demand = forecast.of_running(slots.length[held], generated, bound, slots.outcomes[held])
    assert demand.variance.max() < 1e-9
    assert round(demand.mean[0]) == scheduler.state.pool.used
    for step in range(1, max(length for _, length in work)):
        assert forecast.steps[step] == step
        assert round(demand.mean[step]) == run_step()
    assert scheduler.state.pool.used == 0


def waiting(prompt: int, outcomes: tuple[int, ...], bound: int, generated: int = 0) -> Sequence:
    lengths = LengthDistribution(outcomes)
    request = Request("a", (1,) * prompt, bound, lengths)
    return Sequence(0, request, [5] * generated, outcomes_of(lengths, bound))


def test_demand_is_weighted_by_survival() -> None:
    forecast = KVForecast(100, 1, skew=0)
    demand = forecast.of_waiting([waiting(10, (5, 20), 50)]).total()
    assert demand.mean[0] == 10
    assert demand.mean[10] == (10 + 10) / 2
    assert demand.variance[10] == 20 * 20 / 4
    assert demand.mean[30] == 0


def test_a_sequence_that_outlived_its_prediction_still_counts() -> None:
    forecast = KVForecast(100, 1, skew=0)
    demand = forecast.of_running(
        np.array([50], dtype=np.int32),
        np.array([40], dtype=np.int32),
        np.array([90], dtype=np.int32),
        np.full((1, OUTCOMES), 8, dtype=np.int32),
    )
    assert demand.mean[0] == 49
    assert demand.mean[20] == 69
    assert demand.mean[22] == 0


def test_no_sequence_is_forecast_beyond_its_bound() -> None:
    forecast = KVForecast(200, 1, skew=2)
    demand = forecast.of_waiting([waiting(10, (1000,), 30)]).total()
    assert demand.mean.max() <= 41
