"""Replacements of mechanisms, and the loss of a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from benchmarks import ablations
from benchmarks.ablated_policies import (
    a_free_block,
    as_they_come,
    by_count,
    by_count_and_arrival,
    free_now,
    free_share,
    own_members,
    used_now,
)
from benchmarks.ablations import ABLATIONS, Ablation, rows_of, run_ablation, table_of
from benchmarks.paper_work import Task, jobs_of

from tdpipe.scheduling.forecast import Demands
from tdpipe.simulation.candidate import make_candidate, simulate

if TYPE_CHECKING:
    from benchmarks.ablated_policies import DecodeBatch

    from tdpipe.core.step import IntArray
    from tdpipe.simulation.candidate import Candidate
    from tdpipe.simulation.record import SimulationRecord
    from tdpipe.simulation.scenario import Scenario
    from tdpipe.simulation.stage_timeline import StageTimeline
    from tdpipe.simulation.workload import Job

STAGES = 2
TASK = Task("13B", make_candidate("temporal"), 20, 0, "oracle", None, None)


@dataclass
class Ready:
    """Part of a view that batches are chosen from: `ready` slots, of which the lowest has the youngest sequence."""

    slots: list[int]
    decoding: int
    stages: int = STAGES

    @property
    def ready(self) -> IntArray:
        return np.array(self.slots, dtype=np.int32)

    def by_arrival(self, slots: IntArray) -> IntArray:
        return np.sort(slots)[::-1]


def chosen(batch: DecodeBatch, slots: list[int], decoding: int) -> list[int]:
    view: Any = Ready(slots, decoding)
    return batch(view).tolist()


def test_batches_by_count_have_an_equal_share_of_the_sequences_that_waited_longest() -> None:
    assert chosen(by_count, [5, 3, 4, 0], 7) == [5, 3, 4, 0]
    assert chosen(by_count, [5, 3, 4, 0], 5) == [5, 3, 4]


def test_published_batches_have_an_equal_share_of_the_sequences_that_arrived_first() -> None:
    assert chosen(by_count_and_arrival, [0, 3, 5, 4], 4) == [5, 4]


def test_fixed_batches_keep_their_members() -> None:
    assert chosen(own_members, [5, 4, 3, 1], 8) == [5, 3, 1]
    assert chosen(own_members, [], 8) == []


def test_unbalanced_batches_have_all_ready_sequences() -> None:
    assert chosen(as_they_come, [5, 4, 3], 8) == [5, 4, 3]


def test_without_a_forecast_the_blocks_in_use_count() -> None:
    demands = Demands(np.array([[4.0, 9.0], [6.0, 20.0]]), np.ones((2, 2)))
    assert used_now(demands).tolist() == [4.0, 6.0]
    assert used_now(demands, share=0.5).tolist() == [8.0, 12.0]


def test_a_threshold_switches_at_a_share_of_free_kv() -> None:
    @dataclass
    class Blocks:
        free_blocks: int
        capacity: int = 100

    view: Any = Blocks(20)
    assert free_share(view, [], share=0.2)
    assert not free_share(view, [], share=0.21)


def test_without_an_outlook_every_free_block_admits_requests() -> None:
    @dataclass
    class Blocks:
        free_blocks: int
        block_size: int = 16
        changes: int = 0
        decoding: int = 9

    view: Any = Blocks(3)
    assert free_now(view).spare == 48
    assert a_free_block(view)
    view.free_blocks = 0
    assert not a_free_block(view)


def test_every_row_has_a_unique_name_and_builds_its_policy() -> None:
    assert len({each.name for each in ABLATIONS}) == len(ABLATIONS)
    for each in ABLATIONS:
        assert each.build(make_candidate(each.policy).settings).name == each.policy


def test_losses_are_relative_to_the_same_policy_with_the_same_seed() -> None:
    tried = tuple(
        Ablation(policy, mechanism)
        for policy in ("adaptive", "temporal")
        for mechanism in ("whole", "order")
    )
    rates = [(100.0, 200.0), (90.0, 190.0), (50.0, 50.0), (60.0, 40.0)]
    any_run = run_ablation(ABLATIONS[0], replace(TASK, requests=1))
    runs = [
        [replace(any_run, output_tokens_per_second=rate, bubble=(0.5, 0.3)) for rate in seeds]
        for seeds in rates
    ]
    rows = rows_of(tried, runs)
    assert rows[1].losses == pytest.approx((0.1, 0.05))
    assert rows[3].losses == pytest.approx((-0.2, 0.2))
    assert rows[0].bubble == pytest.approx(0.4)
    table = table_of(rows)
    assert "| 140 | 7.5 (5.0 to 10.0) |" in table
    assert len(table.splitlines()) == 2 + len(rows)


def test_scheduling_on_stage_0_slows_the_simulation() -> None:
    rows = [each for each in ABLATIONS if each.policy == "temporal"]
    whole, published = (
        run_ablation(next(each for each in rows if ends in each.name), TASK)
        for ends in ("whole", "pickled")
    )
    assert published.seconds > whole.seconds


def test_a_policy_that_knows_max_tokens_gets_no_other_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served: list[Job] = []

    def recording(
        candidate: Candidate, scenario: Scenario, jobs: list[Job]
    ) -> tuple[SimulationRecord, StageTimeline]:
        served.extend(jobs)
        return simulate(candidate, scenario, jobs)

    monkeypatch.setattr(ablations, "simulate", recording)
    run_ablation(next(each for each in ABLATIONS if each.lengths == "max_tokens"), TASK)
    assert [each.lengths.outcomes for each in served] == [(each.max_tokens,) for each in served]
    assert [each.output_tokens for each in served] == [each.output_tokens for each in jobs_of(TASK)]
    assert any(each.max_tokens > each.output_tokens for each in served)
