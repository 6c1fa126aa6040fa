"""The simulated clock: what steps wait for, and that every policy serves every job."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tdpipe.core.capacity import Capacity
from tdpipe.core.latencies import Latencies
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.settings import SchedulerSettings
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.candidate import POLICY_NAMES
from tdpipe.simulation.figures import figures_of
from tdpipe.simulation.simulator import Simulator
from tdpipe.simulation.stage_timeline import ControlOnStage, StageTimeline
from tdpipe.simulation.workload import Job

if TYPE_CHECKING:
    from tdpipe.simulation.record import SimulationRecord


def flat_cost(stages: int, seconds: float) -> CostModel:
    """Every step takes the same time on every stage."""
    points = np.array([1, 4096], dtype=np.int32)
    return CostModel((StageCost(points, np.array([seconds, seconds])),) * stages)


def job(prompt: int, output: int, arrival: float = 0.0) -> Job:
    return Job(prompt, output, LengthDistribution((output,)), 256, arrival)


def run(
    policy: str,
    jobs: list[Job],
    cost: CostModel,
    *,
    blocks: int = 1_000,
    latencies: Latencies | None = None,
    control: ControlOnStage | None = None,
) -> tuple[SimulationRecord, StageTimeline]:
    settings = SchedulerSettings.model_validate({"policy": policy})
    capacity = Capacity(blocks, 16, 64, 1_024)
    scheduler = Scheduler(make_policy(settings), capacity, cost)
    timeline = StageTimeline(cost, 64, latencies or Latencies(), keep=True, control=control)
    return Simulator(scheduler, timeline, jobs).run(), timeline


def test_one_request_takes_every_stage_once_per_token() -> None:
    record, _ = run("temporal", [job(8, 5)], flat_cost(3, 0.01))
    assert record.seconds == pytest.approx(5 * 3 * 0.01)
    assert record.requests[0].first == pytest.approx(3 * 0.01)
    assert record.output_tokens == 5


def test_latencies_are_paid_on_the_way() -> None:
    latencies = Latencies(step=1.0, activations=0.1, activation_token=0.01, feedback=2.0)
    record, _ = run("temporal", [job(10, 1)], flat_cost(2, 0.5), latencies=latencies)
    assert record.seconds == pytest.approx(1.0 + 0.5 + 0.1 + 10 * 0.01 + 0.5 + 2.0)


def test_scheduling_on_stage_0_delays_each_step_and_is_no_computing() -> None:
    control = ControlOnStage(step=0.1, row=0.01, token=0.001)
    record, _ = run("temporal", [job(10, 2)], flat_cost(2, 0.5), control=control)
    per_step = 0.1 + 0.01 + 2 * 0.5
    assert record.seconds == pytest.approx(2 * per_step + (10 + 11) * 0.001)
    assert record.stage_busy == pytest.approx((1.0, 1.0))


def test_a_stage_computes_one_step_at_a_time_and_in_the_order_of_issue() -> None:
    jobs = [job(20 + 7 * number % 90, 3 + 5 * number % 40) for number in range(30)]
    _, timeline = run("hybrid", jobs, flat_cost(3, 0.01))
    for stage in range(3):
        intervals = [(each.begins[stage], each.ends[stage]) for each in timeline.intervals]
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(intervals))
    for each in timeline.intervals:
        assert all(end <= begin for end, begin in zip(each.ends, each.begins[1:], strict=False))


def test_a_request_is_not_started_before_it_arrives() -> None:
    record, timeline = run("hybrid", [job(8, 2), job(8, 2, arrival=5.0)], flat_cost(2, 0.01))
    assert record.requests[1].first >= 5.0
    assert record.idle == pytest.approx(5.0 - record.requests[0].end)
    assert any(each.begins[0] >= 5.0 for each in timeline.intervals)


@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize("blocks", [24, 1_000])
def test_every_policy_serves_every_job_with_uncertain_lengths(policy: str, blocks: int) -> None:
    draw = np.random.default_rng(3)
    unsure = LengthDistribution((10, 50, 120))
    jobs = [
        Job(int(draw.integers(1, 100)), int(draw.integers(1, 150)), unsure, 256, float(at))
        for at in draw.exponential(0.05, 60).cumsum()
    ]
    record, _ = run(policy, jobs, flat_cost(4, 0.005), blocks=blocks)
    assert all(each.arrival < each.first <= each.end <= record.seconds for each in record.requests)
    assert record.kv[-1].used == 0
    figures = figures_of(policy, record)
    assert 0 < figures.kv_peak <= 1.0
    assert figures.bubble_free_seconds <= figures.seconds
    assert sum(sample.tokens for sample in record.kv) == sum(each.output_tokens for each in jobs)


def test_the_same_run_twice_gives_the_same_figures() -> None:
    jobs = [job(20 + 7 * number % 90, 3 + 5 * number % 40) for number in range(40)]
    first, second = (run("adaptive", jobs, flat_cost(4, 0.01))[0] for _ in range(2))
    assert first == second
