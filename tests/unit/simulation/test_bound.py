"""The steady-state bound against cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tdpipe.core.lengths import LengthDistribution
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.simulation.bound import resident_tokens, steady_bound
from tdpipe.simulation.workload import Job


def linear_cost(stages: int, fixed: float, per_token: float) -> CostModel:
    points = np.array([1, 4096], dtype=np.int32)
    stage = StageCost(points, fixed + per_token * points.astype(np.float64))
    return CostModel((stage,) * stages)


def jobs(prompt: int, output: int) -> list[Job]:
    return [Job(prompt, output, LengthDistribution((output,)), output)]


def test_a_resident_holds_its_prompt_and_half_its_output() -> None:
    assert resident_tokens(jobs(100, 50)) == 125


def test_long_outputs_count_for_longer() -> None:
    both = [*jobs(0, 100), *jobs(0, 300)]
    assert resident_tokens(both) == pytest.approx((100 * 50 + 300 * 150) / 400)


def test_with_no_fixed_cost_a_token_costs_its_prefill_and_itself() -> None:
    bound = steady_bound(linear_cost(2, 0.0, 1e-3), 2, 10_000, jobs(100, 100), mixing=True)
    assert bound.tokens_per_second == pytest.approx(1 / 2e-3, rel=1e-3)


def test_mixing_saves_the_fixed_cost_of_prefill_steps() -> None:
    cost, work = linear_cost(4, 0.02, 1e-5), jobs(200, 100)
    mixed = steady_bound(cost, 4, 40_000, work, mixing=True)
    apart = steady_bound(cost, 4, 40_000, work, mixing=False)
    assert mixed.tokens_per_second > apart.tokens_per_second
    # 40,000 tokens of KV are 160 residents, 40 a micro-batch, each with 80 prefill tokens.
    assert mixed.tokens_per_second == pytest.approx(40 / (0.02 + 120 * 1e-5), rel=0.02)
    assert all(prefill == 0 or decode == 0 for _, decode, prefill in apart.compositions)


def test_more_kv_never_lowers_the_bound() -> None:
    cost, work = linear_cost(4, 0.02, 1e-5), jobs(300, 200)
    rates = [
        steady_bound(cost, 4, kv, work, mixing=True).tokens_per_second
        for kv in (5_000, 20_000, 80_000)
    ]
    assert rates == sorted(rates)


def test_too_little_kv_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one sequence"):
        steady_bound(linear_cost(4, 0.01, 1e-5), 4, 500, jobs(300, 200), mixing=True)
