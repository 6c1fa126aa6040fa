from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.evaluation import score_outcomes
from tdpipe.prediction.training import TrainingFailedError, train, train_and_evaluate
from tests.unit.prediction.prompts import essays


def test_lengths_are_predicted_from_the_text_without_bias() -> None:
    held_out = essays(1000, seed=2)
    outcomes = train(essays(1200, seed=1)).outcomes(held_out.vectors, held_out.max_tokens)
    errors = score_outcomes(outcomes, held_out.lengths)
    # The noise, a fifth of the length, cannot be predicted; without the text the deviation is about 120 tokens.
    assert errors.deviation < 65
    assert abs(errors.bias) < 0.03 * errors.mean_length
    assert outcomes.shape == (1000, OUTCOMES)
    assert (np.diff(outcomes, axis=1) >= 0).all()


def test_the_share_of_outputs_below_each_outcome_matches_its_level() -> None:
    held_out = essays(2000, seed=2)
    outcomes = train(essays(1200, seed=1)).outcomes(held_out.vectors, held_out.max_tokens)
    for level in (4, 16, 28):
        below = (held_out.lengths < outcomes[:, level]).mean()
        assert below == pytest.approx((level + 0.5) / OUTCOMES, abs=0.05)


def test_outputs_that_were_cut_off_count_as_longer() -> None:
    training, held_out = essays(1500, seed=1), essays(1000, seed=2)
    limits = np.random.default_rng(3).choice([100, 200, 4096], size=len(training))
    cut = replace(
        training,
        lengths=np.minimum(training.lengths, limits),
        complete=training.lengths < limits,
        max_tokens=limits,
    )
    assert 0.3 < 1 - cut.complete.mean() < 0.7
    outcomes = train(cut).outcomes(held_out.vectors, held_out.max_tokens)
    trained_as_complete = train(replace(cut, complete=np.ones(len(cut), dtype=np.bool_)))
    naive = trained_as_complete.outcomes(held_out.vectors, held_out.max_tokens)
    assert abs(score_outcomes(outcomes, held_out.lengths).bias) < 0.1 * held_out.lengths.mean()
    assert score_outcomes(naive, held_out.lengths).bias > 0.2 * held_out.lengths.mean()


def test_max_tokens_is_reached_as_often_as_predicted() -> None:
    training, held_out = essays(1500, seed=1, max_tokens=200), essays(2000, seed=2, max_tokens=200)
    outcomes = train(training).outcomes(held_out.vectors, held_out.max_tokens)
    assert outcomes.max() == 200
    reached = (held_out.lengths == 200).mean()
    assert 0.3 < reached < 0.7
    assert (outcomes == 200).mean() == pytest.approx(reached, abs=0.04)


def test_a_model_is_chosen_only_if_it_beats_the_mean() -> None:
    training, held_out = essays(1000, seed=1), essays(300, seed=2)
    assert train_and_evaluate(training, held_out, None).choice == "candidate"
    shuffled = replace(training, vectors=np.random.default_rng(0).permutation(training.vectors))
    evaluation = train_and_evaluate(shuffled, held_out, None)
    assert evaluation.choice == "mean"
    assert train_and_evaluate(shuffled, held_out, train(training)).choice == "incumbent"


def test_rows_without_information_are_reported() -> None:
    rows = essays(300, seed=1)
    with pytest.raises(TrainingFailedError, match="constant"):
        train(replace(rows, vectors=np.zeros_like(rows.vectors)))
    held_out = essays(100, seed=2)
    aborted = replace(held_out, complete=np.zeros(len(held_out), dtype=np.bool_))
    with pytest.raises(TrainingFailedError, match="cut off by its client"):
        train_and_evaluate(rows, aborted, None)
