from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdpipe.scheduling.cost_model import CostModel, MixingCost, StageCost, kv_reads, profiled_cost
from tests.support.step_driver import row_step
from tests.unit.core.test_profile import make_profile


def staircase() -> StageCost:
    return StageCost(
        np.array([1, 128, 129, 256], dtype=np.int32), np.array([0.01, 0.01, 0.02, 0.02]), 1e-6
    )


def test_times_follow_the_table_and_the_context() -> None:
    cost = CostModel((staircase(),))
    assert cost.step_time(128, 0) == pytest.approx(0.01)
    assert cost.step_time(129, 0) == pytest.approx(0.02)
    assert cost.step_time(64, 1000) == pytest.approx(0.011)


def test_the_slowest_stage_decides() -> None:
    slow = StageCost(np.array([1, 256], dtype=np.int32), np.array([0.05, 0.05]))
    assert CostModel((staircase(), slow)).step_time(256, 0) == pytest.approx(0.05)


@st.composite
def stage_costs(draw: st.DrawFn) -> StageCost:
    tokens = sorted(draw(st.sets(st.sampled_from((1, 2, 8, 64, 100, 4_096, 5_000)), min_size=1)))
    seconds = draw(st.lists(st.integers(1, 9), min_size=len(tokens), max_size=len(tokens)))
    prices = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    return StageCost(
        np.array(tokens, dtype=np.int32), np.array(seconds) / 1e3, *np.divide(prices, 1e5)
    )


@given(st.lists(stage_costs(), min_size=1, max_size=4), st.integers(1, 12_000), st.integers(0, 999))
def test_no_stage_that_may_be_the_slowest_is_left_out(
    stages: list[StageCost], tokens: int, context: int
) -> None:
    cost = CostModel(tuple(stages))
    counts = np.array([tokens, 1], dtype=np.int32)
    contexts = np.array([context, 0], dtype=np.int32)
    one, one_context = np.array([float(tokens)]), np.array([float(context)])
    slowest = max(each.seconds(one, one_context, one)[0] for each in stages)
    assert cost.step_seconds(counts, contexts)[0] == pytest.approx(slowest)
    assert cost.step_time(tokens, context) == pytest.approx(slowest)
    unsampled = max(each.seconds(one, one_context)[0] for each in stages)
    assert cost.step_time(tokens, context, 0) == pytest.approx(unsampled)
    expensive = CostModel(cost.stages, MixingCost(0.1, 2.0))
    mixed = max(each.seconds(one, np.array([2.0 * context]))[0] for each in stages) + 0.1
    assert expensive.step_seconds(counts, contexts, np.ones(2, dtype=np.bool_), np.zeros(2))[
        0
    ] == pytest.approx(mixed)
    times = cost.step_seconds(np.arange(1, tokens + 1, dtype=np.int32), np.zeros(tokens))
    if cost.ascends:
        assert (np.diff(times) >= -1e-12).all()


@pytest.mark.parametrize("tokens", [1, 100, 129, 4096, 10_000])
def test_one_batch_costs_what_it_costs_among_many(tokens: int) -> None:
    cost = CostModel((staircase(), staircase()))
    many = cost.step_seconds(
        np.array([tokens, 1], dtype=np.int32), np.array([500, 1], dtype=np.int32)
    )
    assert many[0] == pytest.approx(cost.step_time(tokens, 500))


def test_beyond_the_table_time_grows_with_its_last_rate() -> None:
    assert CostModel((staircase(),)).step_time(512, 0) == pytest.approx(0.04)


def test_every_token_of_a_batch_is_sampled_unless_the_caller_says_otherwise() -> None:
    cost = CostModel((StageCost(np.array([1, 256], dtype=np.int32), np.ones(2), 0.0, 1e-3),))
    tokens, context = np.array([10, 5_000], dtype=np.int32), np.zeros(2)
    whole = cost.step_seconds(tokens, context)
    assert whole - cost.step_seconds(tokens, context, sampled=np.zeros(2)) == pytest.approx(
        tokens * 1e-3
    )
    assert cost.step_time(10, 0) == pytest.approx(whole[0])
    assert cost.step_time(10, 0, 4) == pytest.approx(1.0 + 4e-3)
    step = row_step(0, [(0, 100, 1, True), (1, 0, 7, False), (2, 0, 2, True)])
    assert cost.stage_seconds(step) == pytest.approx((1.0 + 2e-3,))


@pytest.mark.parametrize(
    ("rows", "mixed"),
    [
        ([(0, 100, 1, True), (1, 50, 1, True)], False),
        ([(0, 100, 9, False)], False),
        ([(0, 0, 1, False), (1, 0, 7, True)], False),  # a prompt's first token is no decode row
        ([(0, 100, 1, True), (1, 0, 7, False)], True),
    ],
)
def test_only_steps_with_decode_and_prefill_rows_pay_for_mixing(
    rows: list[tuple[int, int, int, bool]], mixed: bool
) -> None:
    stages = (StageCost(np.array([1, 256], dtype=np.int32), np.ones(2), 1e-3),)
    step = row_step(0, rows)
    (pure,) = CostModel(stages).stage_seconds(step)
    (expensive,) = CostModel(stages, MixingCost(0.5, 2.0)).stage_seconds(step)
    assert expensive - pure == pytest.approx(0.5 + 100e-3 if mixed else 0.0)


@pytest.mark.parametrize(
    ("row", "reads"),
    [
        ((0, 1), 0.0),
        ((100, 1), 100.0),
        ((100, 32), 100.0),
        ((100, 33), 100.0 + 132.0),
        ((0, 96), 32.0 + 64.0),
    ],
)
def test_each_tile_of_a_row_reads_what_stands_before_it(row: tuple[int, int], reads: float) -> None:
    first, counts = np.array([7, row[0]], dtype=np.int32), np.array([1, row[1]], dtype=np.int32)
    assert kv_reads(first, counts, 32) == 7.0 + reads


def test_a_profile_s_table_context_chunks_and_mixing_all_count() -> None:
    cost = profiled_cost(make_profile())
    decode = row_step(0, [(0, 1000, 1, True), (1, 1000, 1, True)])
    prompt = cost.stage_seconds(row_step(0, [(0, 0, 129, True)]))
    assert prompt == pytest.approx((0.5 + (64 + 128) * 1.25e-8, 0.5))
    table = cost.stage_seconds(row_step(0, [(0, 0, 2, True)]))
    assert cost.stage_seconds(decode)[0] == pytest.approx(table[0] + 2000 * 1.25e-8)
    assert cost.stage_seconds(decode)[1] == pytest.approx(table[1])
    # A chunk of two tiles reads its context twice, and its second tile the first.
    chunk = row_step(0, [(0, 1000, 128, True)])
    assert cost.stage_seconds(chunk)[0] == pytest.approx(0.25 + 2064 * 1.25e-8)
    mixed = row_step(0, [(0, 1000, 1, True), (1, 0, 127, True)])
    assert cost.stage_seconds(mixed)[0] == pytest.approx(0.25 + 1.5 * 1064 * 1.25e-8 + 0.001)
