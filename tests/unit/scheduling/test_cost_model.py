from __future__ import annotations

import numpy as np
import pytest

from tdpipe.scheduling.cost_model import CostModel, Observation, StageCost, fit_cost, kv_reads
from tests.support.step_driver import row_step


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


@pytest.mark.parametrize("tokens", [1, 100, 129, 4096, 10_000])
def test_one_batch_costs_what_it_costs_among_many(tokens: int) -> None:
    cost = CostModel((staircase(), staircase()))
    many = cost.step_seconds(
        np.array([tokens, 1], dtype=np.int32), np.array([500, 1], dtype=np.int32)
    )
    assert many[0] == pytest.approx(cost.step_time(tokens, 500))


def test_beyond_the_table_time_grows_with_its_last_rate() -> None:
    assert CostModel((staircase(),)).step_time(512, 0) == pytest.approx(0.04)


def test_a_fit_recovers_the_cost_that_made_the_observations() -> None:
    truth = CostModel((StageCost(np.array([1, 64], dtype=np.int32), np.array([0.01, 0.03]), 2e-6),))
    seen = [
        Observation(tokens, context, tokens, (truth.step_time(tokens, context),))
        for tokens in (1, 16, 64)
        for context in (tokens, tokens * 200)
        for _ in range(3)
    ]
    fitted = fit_cost(seen)
    for tokens, context in ((16, 100), (64, 9000), (1, 1)):
        assert fitted.step_time(tokens, context) == pytest.approx(
            truth.step_time(tokens, context), rel=0.02
        )


@pytest.mark.parametrize("seed", range(20))
def test_noise_over_a_short_context_is_no_price(seed: int) -> None:
    draw = np.random.default_rng(seed)
    seen = [
        Observation(2, context, 2, (0.03 * draw.normal(1.0, 0.05),))
        for context in (0, 512)
        for _ in range(3)
    ]
    fitted = fit_cost(seen).stages[0].per_context
    assert fitted == 0.0 or min(e.seconds for e in seen[3:]) > max(e.seconds for e in seen[:3])


def test_what_a_sampled_token_costs_is_told_from_prompts_of_as_many_tokens() -> None:
    points = np.array([1, 16, 64], dtype=np.int32)
    truth = CostModel((StageCost(points, np.array([0.01, 0.02, 0.03]), 2e-6, 3e-4),))
    draw = np.random.default_rng(0)
    seen = [
        Observation(
            tokens,
            context,
            sampled,
            (truth.step_time(tokens, context, sampled) * draw.normal(1.0, 0.01),),
        )
        for tokens in points.tolist()
        for context, sampled in ((0, tokens), (0, 1), (tokens * 200, tokens))
        for _ in range(5)
    ]
    fitted = fit_cost(seen)
    assert fitted.stages[0].per_sampled == pytest.approx(3e-4, rel=0.1)
    for tokens, context, sampled in ((16, 0, 4), (64, 0, 1), (64, 9000, 64), (1, 0, 1)):
        expected = truth.step_time(tokens, context, sampled)
        assert fitted.step_time(tokens, context, sampled) == pytest.approx(expected, rel=0.05)


def test_every_token_of_a_batch_is_sampled_unless_told_otherwise() -> None:
    cost = CostModel((StageCost(np.array([1, 256], dtype=np.int32), np.ones(2), 0.0, 1e-3),))
    tokens, context = np.array([10, 5_000], dtype=np.int32), np.zeros(2)
    whole = cost.step_seconds(tokens, context)
    assert whole - cost.step_seconds(tokens, context, sampled=np.zeros(2)) == pytest.approx(
        tokens * 1e-3
    )
    assert cost.step_time(10, 0) == pytest.approx(whole[0])
    assert cost.step_time(10, 0, 4) == pytest.approx(1.0 + 4e-3)
    step = row_step(0, [(0, 100, 1, True), (1, 0, 7, False), (2, 0, 2, True)])
    assert cost.stage_seconds(step) == (pytest.approx(1.0 + 2e-3),)


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


def test_a_few_tokens_that_cost_more_than_many_are_evened_out() -> None:
    seen = [Observation(t, 0, t, (s,)) for t, s in ((1, 0.020), (2, 0.024), (3, 0.016), (4, 0.030))]
    fitted = fit_cost(seen)
    assert [fitted.step_time(t, 0) for t in (1, 2, 3)] == pytest.approx([0.020] * 3)
    assert fitted.step_time(4, 0) == pytest.approx(0.030)


def test_noise_never_makes_more_tokens_cheaper() -> None:
    fitted = fit_cost([Observation(t, t, t, (s,)) for t, s in ((1, 0.02), (2, 0.01), (4, 0.03))])
    times = [fitted.step_time(tokens, 0) for tokens in (1, 2, 3, 4, 8)]
    assert times == sorted(times)


def test_what_differs_by_noise_alone_makes_no_price_of_context() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        noise = draw.normal(1.0, 0.02, 6)
        contexts = (0, 0, 0, 16 * 257, 16 * 258, 16 * 259)
        seen = [Observation(16, c, 16, (0.5 * n,)) for c, n in zip(contexts, noise, strict=True)]
        alone = seen[3:]
        for observations in (seen, alone):
            assert fit_cost(observations).stages[0].per_context < 0.5 * 0.1 / (16 * 257)


def test_one_long_step_makes_a_price_only_if_it_is_slower_than_nearly_all_short_ones() -> None:
    short = [Observation(16, 0, 16, (1.0 + 0.01 * each,)) for each in range(20)]
    for seconds, priced in ((1.165, False), (1.3, True)):
        one = [Observation(16, 4096, 16, (seconds,))]
        assert (fit_cost(short + one).stages[0].per_context > 0.0) is priced


def test_pairs_of_several_token_counts_tell_less_than_if_each_were_alone() -> None:
    # Of the four pairs of a count 3 are slower with context, of one count all 4: 13 of 16.
    pairs = [((1.0, 1.02), (1.01, 1.03))] * 3 + [((1.0, 1.01), (1.02, 1.03))]
    seen = [
        Observation(16 * count, context, 16 * count, (count * seconds,))
        for count, (short, long) in enumerate(pairs, start=1)
        for context, times in ((0, short), (4096 * count, long))
        for seconds in times
    ]
    assert fit_cost(seen).stages[0].per_context == 0.0


def test_nothing_to_fit_from_is_refused() -> None:
    with pytest.raises(ValueError, match="no observation"):
        fit_cost([])
