"""What the scheduler is told of lengths: all of it, a class, or the usual."""

from __future__ import annotations

import numpy as np
import pytest

from tdpipe.simulation.length_knowledge import predictions

LENGTHS = np.random.default_rng(0).gamma(2.0, 200.0, 5_000).astype(int) + 1


def means(knowledge: str) -> np.ndarray:
    told = predictions(LENGTHS[:2_000], LENGTHS, knowledge, 0)  # type: ignore[arg-type]
    return np.array([np.mean(each.outcomes) for each in told])


def test_an_oracle_tells_the_length() -> None:
    assert np.array_equal(means("oracle"), LENGTHS[:2_000])


def test_the_mean_tells_of_each_the_same() -> None:
    told = means("mean")
    assert len(set(told.tolist())) == 1
    assert told[0] == pytest.approx(LENGTHS.mean(), rel=0.02)


def test_a_classifier_knows_something_and_its_sums_are_right() -> None:
    told = means("classifier")
    correlation = float(np.corrcoef(told, LENGTHS[:2_000])[0, 1])
    assert 0.3 < correlation < 0.9
    assert told.sum() == pytest.approx(LENGTHS[:2_000].sum(), rel=0.03)
    assert len(set(told.tolist())) == 4
