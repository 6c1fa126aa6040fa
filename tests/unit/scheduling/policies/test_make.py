"""Settings reach the policy that they name."""

from __future__ import annotations

import numpy as np
import pytest

from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.settings import SchedulerSettings
from tdpipe.core.step import Phase, Step
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.candidate import POLICY_NAMES


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_the_policy_has_the_name_that_it_was_asked_for_by(name: str) -> None:
    assert make_policy(SchedulerSettings.model_validate({"policy": name})).name == name


def late_step(ttft: float | None = None, tpot: float | None = None) -> Step:
    """Return the first step for a prompt that has waited for 10 s while another sequence decodes.

    A step takes 20 ms a stage up to 64 tokens, and 21 ms beyond.
    """
    settings = SchedulerSettings(policy="adaptive", ttft_target=ttft, tpot_target=tpot)
    points = np.array([1, 64, 65, 512], dtype=np.int32)
    stage = StageCost(points, np.array([0.02, 0.02, 0.021, 0.021]))
    scheduler = Scheduler(
        make_policy(settings), Capacity(1_000, 16, 64, 2_048), CostModel((stage,) * 2)
    )
    scheduler.add(Request("running", (3,) * 8, 100, LengthDistribution((100,))), 0.0)
    first = scheduler.next_step(0.0)
    assert isinstance(first, Step)
    scheduler.on_result(first.id, np.array([9], dtype=np.int32))
    scheduler.add(Request("late", (3,) * 400, 100, LengthDistribution((100,))), 0.0)
    step = scheduler.next_step(10.0)
    assert isinstance(step, Step)
    return step


def test_each_latency_target_reaches_the_adaptive_policy() -> None:
    assert late_step().phase is Phase.MIXED
    assert late_step().tokens > 64
    assert late_step(ttft=1.0).phase is Phase.PREFILL
    assert late_step(tpot=0.041).phase is Phase.MIXED
    assert late_step(tpot=0.041).tokens <= 64
