from __future__ import annotations

import numpy as np
import pytest

from tdpipe.prediction.score import score


def test_the_error_of_a_sum_is_what_drawing_sums_gives() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 100, size=20_000)
    expected = np.full((20_000, 1), 45)
    got = score(expected, lengths)
    for requests in (8, 128):
        sums = lengths[: 20_000 // requests * requests].reshape(-1, requests).sum(axis=1)
        drawn = np.sqrt(((sums - 45 * requests) ** 2).mean()) / (requests * lengths.mean())
        assert got.sum_error(requests) == pytest.approx(drawn, rel=0.06)


def test_a_distribution_is_better_than_its_mean() -> None:
    lengths = np.array([10, 20, 30, 40] * 50)
    spread = np.tile([10, 20, 30, 40], (200, 1))
    mean = np.full((200, 4), 25)
    assert score(spread, lengths).pinball < score(mean, lengths).pinball
    assert score(spread, lengths).bias == score(mean, lengths).bias == 0
