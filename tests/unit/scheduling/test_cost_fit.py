from __future__ import annotations

import numpy as np
import pytest

from tdpipe.scheduling.cost_fit import Observation, fit_cost
from tdpipe.scheduling.cost_model import CostModel, StageCost


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


def test_what_a_sampled_token_costs_is_fitted_from_prompts_of_as_many_tokens() -> None:
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
