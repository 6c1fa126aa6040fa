from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.scheduling.work_stealing import next_decode_batch

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray


def cost(per_context: float = 0.0) -> CostModel:
    """Steps of 4 tokens, each step more expensive than the last."""
    table = StageCost(
        np.array([1, 4, 5, 8, 9, 12], dtype=np.int32),
        np.array([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]),
        per_context,
    )
    return CostModel((table,))


@dataclass
class Decoding:
    """The part of the view that micro-batches are chosen from; the first `ready_count` sequences are ready, or all."""

    contexts: list[int]
    stages: int
    cost: CostModel = field(default_factory=cost)
    ready_count: int | None = None

    @property
    def ready(self) -> IntArray:
        return np.arange(
            len(self.contexts) if self.ready_count is None else self.ready_count, dtype=np.int32
        )

    @property
    def decoding(self) -> int:
        return len(self.contexts)

    @property
    def context(self) -> int:
        return sum(self.contexts)

    def context_of(self, slots: IntArray) -> IntArray:
        return np.array(self.contexts, dtype=np.int32)[slots]


def batch(contexts: list[int], stages: int, per_context: float = 0.0) -> list[int]:
    view: Any = Decoding(contexts, stages, cost(per_context))
    return next_decode_batch(view).tolist()


def test_equal_sequences_are_dealt_out_equally() -> None:
    assert batch([10] * 8, stages=2) == [0, 1, 2, 3]


def test_long_contexts_make_a_batch_smaller() -> None:
    long_first = [100] * 4 + [10] * 8
    assert len(batch(long_first, stages=2, per_context=0.1)) < 6


def test_short_contexts_make_a_batch_larger() -> None:
    short_first = [10] * 8 + [100] * 4
    assert len(batch(short_first, stages=2, per_context=0.1)) > 6


@pytest.mark.parametrize("seed", range(20))
def test_an_ascending_table_s_mean_is_found_as_any_other_s_is(seed: int) -> None:
    draw = np.random.default_rng(seed)
    points = np.array([1, 3, 4, 9, 20, 40], dtype=np.int32)
    table = StageCost(points, np.sort(draw.uniform(1.0, 3.0, 6)), 0.001)
    view: Any = Decoding(draw.integers(1, 500, 60).tolist(), 3, CostModel((table,)))
    assert view.cost.ascends
    found = next_decode_batch(view).tolist()
    view.cost.ascends = False
    assert found == next_decode_batch(view).tolist()


def test_a_batch_is_not_halved_where_more_rows_were_measured_to_be_faster() -> None:
    points = np.array([1, 2, 3, 5, 6, 12], dtype=np.int32)
    table = StageCost(points, np.array([1.0, 1.0, 2.0, 2.0, 1.5, 1.5]), 0.001)
    view: Any = Decoding([10] * 12, 2, CostModel((table,)))
    assert len(next_decode_batch(view)) == 6


def test_fewer_sequences_than_stages_go_one_by_one() -> None:
    assert batch([10, 10], stages=4) == [0]


def test_a_single_stage_takes_all_that_is_ready() -> None:
    assert batch([10] * 7, stages=1) == list(range(7))


def test_nothing_ready_makes_no_batch() -> None:
    assert batch([], stages=2) == []


def trimmed(contexts: list[int], costs: CostModel | None = None) -> list[int]:
    view: Any = Decoding(contexts, 1, costs or cost())
    return next_decode_batch(view, on_tile_edge=True).tolist()


def test_rows_that_would_begin_a_tile_wait_for_the_next_batch() -> None:
    assert trimmed([10] * 5) == [0, 1, 2, 3]
    assert trimmed([10] * 9) == list(range(8))


def test_a_tile_that_is_nearly_full_is_worth_its_time() -> None:
    points = np.array([1, 4, 5, 8], dtype=np.int32)
    low_step = CostModel((StageCost(points, np.array([1.0, 1.0, 1.5, 1.5])),))
    assert trimmed([10] * 5, low_step) == [0, 1, 2, 3]
    assert trimmed([10] * 7, low_step) == list(range(7))


def test_what_others_left_over_does_not_go_over_the_next_edge() -> None:
    points = np.array([1, 4, 5, 8], dtype=np.int32)
    costs = CostModel((StageCost(points, np.array([1.0, 1.0, 1.9, 1.9]), 0.001),))
    few: Any = Decoding([1] * 8 + [100] * 6, 2, costs, ready_count=8)
    many: Any = Decoding([1] * 8 + [100] * 8, 2, costs, ready_count=8)
    assert len(next_decode_batch(few, on_tile_edge=True)) == 4
    assert len(next_decode_batch(many, on_tile_edge=True)) == 8


def test_long_contexts_leave_no_tile_half_empty() -> None:
    points = np.array([1, 4, 5, 8], dtype=np.int32)
    costs = CostModel((StageCost(points, np.array([1.0, 1.0, 1.9, 1.9]), 0.001),))
    long_first: Any = Decoding([100] * 5 + [1] * 9, 2, costs)
    assert len(next_decode_batch(long_first)) < 7
    assert len(next_decode_batch(long_first, on_tile_edge=True)) == 4


@pytest.mark.parametrize(("context", "rows"), [(10, 4), (250, 5)])
def test_the_tile_edge_is_that_of_the_stage_that_is_slowest_with_the_context_at_hand(
    context: int, rows: int
) -> None:
    tiled = StageCost(np.array([1, 4, 5, 8], dtype=np.int32), np.array([1.0, 1.0, 2.0, 2.0]))
    reading = StageCost(np.array([1, 8], dtype=np.int32), np.array([0.5, 0.5]), 0.01)
    assert len(trimmed([context] * 5, CostModel((tiled, reading)))) == rows


def test_of_equally_cheap_batches_the_largest_is_taken() -> None:
    assert trimmed([10] * 12) == list(range(12))


def test_a_single_row_is_never_held_back() -> None:
    assert trimmed([10]) == [0]
    assert trimmed([]) == []


def test_long_contexts_are_not_put_off_for_short_ones() -> None:
    assert trimmed([1] + [1000] * 7, cost(per_context=1.0)) == list(range(8))


def test_no_price_makes_a_batch_smaller_than_half_of_what_is_ready() -> None:
    points = np.array([1, 4, 5, 16], dtype=np.int32)
    wrong = CostModel((StageCost(points, np.array([0.001, 0.001, 9.0, 9.0])),))
    assert len(trimmed([10] * 10, wrong)) >= 5
