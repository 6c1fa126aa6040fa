from __future__ import annotations

import numpy as np
import pytest

from tdpipe.prediction.survival_curve import survival_curve


def test_slices_keep_the_mean_even_of_a_rare_long_output() -> None:
    lengths = np.array([10.0] * 199 + [4000.0])
    slices = survival_curve(lengths, np.ones(200, dtype=np.bool_)).slices(32)
    assert slices.mean() == pytest.approx(lengths.mean())
    assert (np.diff(slices) >= 0).all()


def test_an_output_that_was_cut_off_counts_as_one_of_the_longer_ones() -> None:
    lengths = np.array([10.0, 20.0, 20.0, 30.0])
    complete = np.array([True, False, True, True])
    curve = survival_curve(lengths, complete)
    # A quarter ends at 10, half of the others at 20 at the latest: the one cut off there is one of the rest.
    assert curve.slices(4).tolist() == pytest.approx([10.0, 20.0, 30.0, 30.0])


def test_where_the_longest_were_cut_off_the_end_is_not_known() -> None:
    lengths = np.array([10.0, 10.0, 50.0, 50.0])
    complete = np.array([True, True, False, False])
    assert survival_curve(lengths, complete).slices(4).tolist() == [10.0, 10.0, np.inf, np.inf]


def test_without_any_end_nothing_is_known() -> None:
    curve = survival_curve(np.array([5.0, 6.0]), np.zeros(2, dtype=np.bool_))
    assert curve.slices(2).tolist() == [np.inf, np.inf]
    assert curve.means_beyond(np.array([5.0])).tolist() == [10.0]


def test_the_mean_beyond_a_length_is_that_of_the_longer_outputs() -> None:
    lengths = np.array([1.0, 2.0, 4.0, 9.0])
    curve = survival_curve(lengths, np.ones(4, dtype=np.bool_))
    beyond = curve.means_beyond(np.array([0.5, 2.0, 3.0, 9.0]))
    assert beyond.tolist() == pytest.approx([4.0, 6.5, 6.5, 18.0])
