"""Policies of the paper's experiment, and the tuning of the baselines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from benchmarks import paper_work
from benchmarks.paper_work import Task, candidates, jobs_of, scenario_of, tune

from tdpipe.simulation.bound import steady_bound
from tdpipe.simulation.candidate import make_candidate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

BASELINES = {"hybrid", "throttled", "separate", "tp-hybrid", "tp-separate"}
BEST = {"hybrid": 192, "throttled": 1024, "separate": 512, "tp-hybrid": 64, "tp-separate": 4096}


class Rate:
    """Figures whose throughput is higher the nearer the budget is to the best one."""

    def __init__(self, task: Task) -> None:
        name = task.candidate.name.split(" @")[0]
        self.output_tokens_per_second = -abs(task.candidate.settings.token_budget - BEST[name])


def task(seed: int = 0) -> Task:
    return Task("13B", make_candidate("adaptive"), 50, seed, "oracle", None, None)


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_a_sweep_finds_the_best_budget_of_each_baseline(
    monkeypatch: pytest.MonkeyPatch, pool: Executor
) -> None:
    monkeypatch.setattr(paper_work, "run_task", Rate)
    tuned = tune(pool, task())
    budgets = {name: each.settings.token_budget for name, each in tuned.items()}
    assert budgets == BEST


def test_every_baseline_runs_as_shipped_and_tuned_and_none_runs_twice() -> None:
    tuned = {name: make_candidate(name).with_budget(budget) for name, budget in BEST.items()}
    tuned["hybrid"] = tuned["hybrid"].with_budget(512)  # as shipped
    names = [each.name for each in candidates(tuned)]
    assert len(names) == len(set(names))
    assert {"adaptive", "temporal", "reference", "adaptive, by arrival"} <= set(names)
    assert {"hybrid @512", "hybrid @2048", "tp-separate @4096", "throttled @1024"} <= set(names)
    assert {name.split(" @")[0] for name in names} >= BASELINES


def test_bounds_depend_on_the_requests_of_the_task() -> None:
    scenario = scenario_of(paper_work.CELLS["13B"], None)
    bounds = [paper_work._bounds(scenario, task(seed))[0] for seed in (0, 1)]
    assert bounds[0] != bounds[1]
    room = scenario.pipeline_kv_tokens
    expected = steady_bound(scenario.pipeline, scenario.stages, room, jobs_of(task(1)), mixing=True)
    assert bounds[1] == expected.tokens_per_second
    assert paper_work._median_share([bounds[0], bounds[1] / 2], bounds) == 0.75
