"""Costs of mixed steps, and the amount from which separate phases are faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks.mixing_cost import PRICES, Point, crossing, draw, with_price

from tdpipe.core.step import Phase, Step
from tdpipe.scheduling.cost_model import CostModel, proportional_cost

if TYPE_CHECKING:
    from pathlib import Path

FREE = proportional_cost(4)


def point(amount: float, temporal: float, hybrid: float) -> Point:
    return Point(amount, temporal, hybrid, 128, max(temporal, hybrid))


def mixed_step_seconds(cost: CostModel) -> float:
    """Return the seconds of a step with a decode row and a chunk of 256 tokens, both after 1,000 tokens of context."""
    none = np.zeros(0, dtype=np.int32)
    counts = np.array([1, 256], dtype=np.int32)
    first = np.array([1_000, 1_000], dtype=np.int32)
    sample = np.array([True, False])
    slots = np.array([0, 1], dtype=np.int32)
    step = Step(0, Phase.MIXED, (), slots, first, counts, sample, none, none)
    return cost.stage_seconds(step)[0]


@pytest.mark.parametrize("kind", PRICES)
def test_the_first_amount_of_each_price_is_free_and_the_next_ones_cost_more(kind: str) -> None:
    times = [mixed_step_seconds(with_price(FREE, kind, amount)) for amount in PRICES[kind].amounts]
    assert times[0] == mixed_step_seconds(FREE)
    assert sorted(set(times)) == times


def test_the_crossing_is_interpolated_between_two_points() -> None:
    assert crossing([point(0.0, 90.0, 100.0), point(4.0, 90.0, 60.0)]) == pytest.approx(1.0)


def test_there_is_no_crossing_where_mixing_is_always_faster() -> None:
    assert crossing([point(0.0, 90.0, 100.0), point(4.0, 90.0, 91.0)]) is None


def test_the_crossing_is_the_first_amount_where_phases_are_always_faster() -> None:
    assert crossing([point(1.0, 90.0, 80.0), point(4.0, 90.0, 70.0)]) == 1.0


def test_the_picture_of_several_prices_is_written(tmp_path: Path) -> None:
    points = [point(1.0, 90.0, 100.0), point(4.0, 90.0, 60.0)]
    draw(tmp_path / "picture.png", "a title", {"replay": points, "rereads": points})
    assert (tmp_path / "picture.png").stat().st_size > 0
