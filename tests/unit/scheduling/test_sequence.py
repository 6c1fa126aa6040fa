"""Which lengths stand for a predicted distribution."""

from __future__ import annotations

from tdpipe.core.lengths import OUTCOMES, LengthDistribution
from tdpipe.scheduling.sequence import outcomes_of


def outcomes(lengths: tuple[int, ...], max_tokens: int = 1_000) -> list[int]:
    return outcomes_of(LengthDistribution(lengths), max_tokens).tolist()


def test_each_of_few_lengths_keeps_its_probability_and_its_place_in_the_order() -> None:
    half = OUTCOMES // 2
    assert outcomes((7,)) == [7] * OUTCOMES
    assert outcomes((5, 20)) == [5] * half + [20] * half


def test_the_middle_stands_for_each_equal_part_of_many_lengths() -> None:
    assert outcomes(tuple(range(1, 3 * OUTCOMES + 1))) == list(range(2, 3 * OUTCOMES + 1, 3))


def test_no_length_is_above_what_the_request_allows() -> None:
    half = OUTCOMES // 2
    assert outcomes((5, 20), max_tokens=12) == [5] * half + [12] * half
