"""Recording, replay and search of switch points."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks.switch_points import Points, Recording, Replay, hill_climb, mutate

from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.settings import SchedulerSettings
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.simulator import Simulator
from tdpipe.simulation.stage_timeline import StageTimeline
from tdpipe.simulation.workload import Job

if TYPE_CHECKING:
    from tdpipe.scheduling.policy import Policy

REQUESTS = 60
STAGES = 2


def switches(policy: Policy) -> int:
    """Return the phase switches until requests of 10 to 59 tokens have ended; a third of them fit at once."""
    points = np.array([1, 512], dtype=np.int32)
    cost = CostModel((StageCost(points, np.array([1e-3, 20e-3])),) * STAGES)
    jobs = [
        Job(20, length, LengthDistribution((length,)), 64)
        for length in (10 + 7 * number % 50 for number in range(REQUESTS))
    ]
    scheduler = Scheduler(policy, Capacity(100, 16, 64, 128), cost)
    record = Simulator(scheduler, StageTimeline(cost, 64), jobs).run()
    assert all(math.isfinite(each.end) for each in record.requests)
    return record.phase_switches


def replay(points: Points) -> Replay:
    settings = SchedulerSettings(
        policy="temporal", token_budget=128, forecast_margin=0.0, switch_hysteresis=1.0
    )
    return Replay(settings, points, REQUESTS)


def test_recorded_switch_points_can_be_replayed() -> None:
    recording = Recording(TemporalPolicy(128, 0.0, 0.0), REQUESTS)
    recorded = switches(recording)
    assert recorded == 2 * len(recording.points) + 1
    assert list(recording.points) == sorted(set(recording.points))
    assert switches(replay(recording.points)) == pytest.approx(recorded, abs=2)


def test_more_switch_points_cause_more_phase_switches() -> None:
    assert switches(replay(())) < switches(replay((8, 30)))


def test_mutations_keep_points_in_order_and_within_the_run() -> None:
    random = Random(1)
    points: Points = ()
    seen = set()
    for _ in range(500):
        points = mutate(points, 50, random)
        assert list(points) == sorted(set(points))
        assert all(1 <= each <= 50 for each in points)
        seen.add(len(points))
    assert len(seen) > 2


def test_hill_climbing_never_gets_worse_and_approaches_the_best() -> None:
    wanted = (10, 20, 30)

    def rate(points: Points) -> float:
        return -float(abs(sum(points) - sum(wanted)) + 10 * abs(len(points) - len(wanted)))

    start = (1, 2, 3, 4)
    assert hill_climb(start, rate, 50, 0, Random(0)) == (start, rate(start))
    found, highest = hill_climb(start, rate, 50, 300, Random(0))
    assert highest == rate(found) > rate(start) / 10
