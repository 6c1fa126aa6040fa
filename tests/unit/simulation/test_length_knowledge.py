"""Predicted lengths: exact, from a classifier, or the same for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tdpipe.simulation.length_knowledge import predictions

if TYPE_CHECKING:
    from tdpipe.simulation.length_knowledge import Knowledge


LENGTHS = np.random.default_rng(0).gamma(2.0, 200.0, 5_000).astype(int) + 1


def means(knowledge: Knowledge) -> np.ndarray:
    predicted = predictions(LENGTHS[:2_000].tolist(), LENGTHS.tolist(), knowledge, 0)
    return np.array([np.mean(each.outcomes) for each in predicted])


def test_an_oracle_predicts_the_length() -> None:
    assert np.array_equal(means("oracle"), LENGTHS[:2_000])


def test_the_mean_is_the_same_for_all() -> None:
    predicted = means("mean")
    assert len(set(predicted.tolist())) == 1
    assert predicted[0] == pytest.approx(LENGTHS.mean(), rel=0.02)


def test_a_classifier_s_predictions_correlate_and_have_the_right_sum() -> None:
    predicted = means("classifier")
    correlation = float(np.corrcoef(predicted, LENGTHS[:2_000])[0, 1])
    assert 0.3 < correlation < 0.9
    assert predicted.sum() == pytest.approx(LENGTHS[:2_000].sum(), rel=0.03)
    assert len(set(predicted.tolist())) == 4
