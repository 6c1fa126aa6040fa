from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.score import score
from tdpipe.prediction.training import TrainingFailedError, judge, train
from tests.unit.prediction.prompts import essays


def test_lengths_are_foreseen_from_the_text_without_bias() -> None:
    judged = essays(1000, seed=2)
    outcomes = train(essays(1200, seed=1)).outcomes(judged.vectors, judged.bounds)
    got = score(outcomes, judged.lengths)
    # The noise, a fifth of the length, cannot be foreseen; without the text the deviation is about 120 tokens.
    assert got.deviation < 65
    assert abs(got.bias) < 0.03 * got.mean_length
    assert outcomes.shape == (1000, OUTCOMES)
    assert (np.diff(outcomes, axis=1) >= 0).all()


def test_as_many_outputs_are_below_each_level_as_it_says() -> None:
    judged = essays(2000, seed=2)
    outcomes = train(essays(1200, seed=1)).outcomes(judged.vectors, judged.bounds)
    for level in (4, 16, 28):
        below = (judged.lengths < outcomes[:, level]).mean()
        assert below == pytest.approx((level + 0.5) / OUTCOMES, abs=0.05)


def test_outputs_that_were_cut_off_count_as_longer() -> None:
    learned, judged = essays(1500, seed=1), essays(1000, seed=2)
    bounds = np.random.default_rng(3).choice([100, 200, 4096], size=len(learned))
    cut = replace(
        learned,
        lengths=np.minimum(learned.lengths, bounds),
        complete=learned.lengths < bounds,
        bounds=bounds,
    )
    assert 0.3 < 1 - cut.complete.mean() < 0.7
    outcomes = train(cut).outcomes(judged.vectors, judged.bounds)
    fooled = train(replace(cut, complete=np.ones(len(cut), dtype=np.bool_)))
    naive = fooled.outcomes(judged.vectors, judged.bounds)
    assert abs(score(outcomes, judged.lengths).bias) < 0.1 * judged.lengths.mean()
    assert score(naive, judged.lengths).bias > 0.2 * judged.lengths.mean()


def test_the_bound_is_reached_as_often_as_it_says() -> None:
    learned, judged = essays(1500, seed=1, bound=200), essays(2000, seed=2, bound=200)
    outcomes = train(learned).outcomes(judged.vectors, judged.bounds)
    assert outcomes.max() == 200
    reached = (judged.lengths == 200).mean()
    assert 0.3 < reached < 0.7
    assert (outcomes == 200).mean() == pytest.approx(reached, abs=0.04)


def test_a_model_is_chosen_only_if_it_beats_the_mean() -> None:
    older, newer = essays(1000, seed=1), essays(300, seed=2)
    assert judge(older, newer, None).choice == "candidate"
    shuffled = replace(older, vectors=np.random.default_rng(0).permutation(older.vectors))
    verdict = judge(shuffled, newer, None)
    assert verdict.choice == "mean"
    assert judge(shuffled, newer, train(older)).choice == "incumbent"


def test_what_cannot_be_learned_from_is_told() -> None:
    rows = essays(300, seed=1)
    with pytest.raises(TrainingFailedError, match="constant"):
        train(replace(rows, vectors=np.zeros_like(rows.vectors)))
    newer = essays(100, seed=2)
    aborted = replace(newer, complete=np.zeros(len(newer), dtype=np.bool_))
    with pytest.raises(TrainingFailedError, match="cut off by its client"):
        judge(rows, aborted, None)
