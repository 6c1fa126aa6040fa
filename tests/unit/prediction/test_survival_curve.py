from __future__ import annotations

import numpy as np
import pytest

from tdpipe.prediction.survival_curve import estimate_survival


def test_quantile_means_keep_the_mean_even_of_a_rare_long_output() -> None:
    lengths = np.array([10.0] * 199 + [4000.0])
    means = estimate_survival(lengths, np.ones(200, dtype=np.bool_)).quantile_means(32)
    assert means.mean() == pytest.approx(lengths.mean())
    assert (np.diff(means) >= 0).all()


def test_an_output_that_was_cut_off_counts_as_one_of_the_longer_ones() -> None:
    lengths = np.array([10.0, 20.0, 20.0, 30.0])
    complete = np.array([True, False, True, True])
    curve = estimate_survival(lengths, complete)
    # A quarter ends at 10 and a third of the others at 20. The output that is cut off at 20 is one of the longer ones.
    assert curve.quantile_means(4).tolist() == pytest.approx([10.0, 20.0, 30.0, 30.0])


def test_the_end_is_unknown_where_the_longest_outputs_were_cut_off() -> None:
    lengths = np.array([10.0, 10.0, 50.0, 50.0])
    complete = np.array([True, True, False, False])
    assert estimate_survival(lengths, complete).quantile_means(4).tolist() == [
        10.0,
        10.0,
        np.inf,
        np.inf,
    ]


def test_nothing_is_known_if_no_output_ended() -> None:
    curve = estimate_survival(np.array([5.0, 6.0]), np.zeros(2, dtype=np.bool_))
    assert curve.quantile_means(2).tolist() == [np.inf, np.inf]
    assert curve.means_above(np.array([5.0])).tolist() == [10.0]


def test_the_mean_above_a_length_is_the_mean_of_the_longer_outputs() -> None:
    lengths = np.array([1.0, 2.0, 4.0, 9.0])
    curve = estimate_survival(lengths, np.ones(4, dtype=np.bool_))
    above = curve.means_above(np.array([0.5, 2.0, 3.0, 9.0]))
    assert above.tolist() == pytest.approx([4.0, 6.5, 6.5, 18.0])
