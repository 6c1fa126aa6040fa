from __future__ import annotations

import numpy as np
import pytest

from tdpipe.prediction.evaluation import score_outcomes


def test_the_error_of_a_sum_equals_that_of_drawn_sums() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 100, size=20_000)
    expected = np.full((20_000, 1), 45)
    errors = score_outcomes(expected, lengths)
    for requests in (8, 128):
        sums = lengths[: 20_000 // requests * requests].reshape(-1, requests).sum(axis=1)
        drawn = np.sqrt(((sums - 45 * requests) ** 2).mean()) / (requests * lengths.mean())
        assert errors.sum_error(requests) == pytest.approx(drawn, rel=0.06)


def test_a_distribution_has_a_lower_loss_than_its_mean() -> None:
    lengths = np.array([10, 20, 30, 40] * 50)
    spread = np.tile([10, 20, 30, 40], (200, 1))
    mean = np.full((200, 4), 25)
    assert score_outcomes(spread, lengths).pinball < score_outcomes(mean, lengths).pinball
    assert score_outcomes(spread, lengths).bias == score_outcomes(mean, lengths).bias == 0
