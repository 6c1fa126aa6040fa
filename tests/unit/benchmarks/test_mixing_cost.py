"""What the sweep over prices of mixing computes beside its simulations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks.mixing_cost import PRICES, Point, crossing, draw, priced

from tdpipe.core.step import Phase, Step
from tdpipe.scheduling.cost_model import CostModel, proportional_cost

if TYPE_CHECKING:
    from pathlib import Path

FREE = proportional_cost(4)


def point(amount: float, temporal: float, hybrid: float) -> Point:
    return Point(amount, temporal, hybrid, 128, max(temporal, hybrid))


def chunk_beside_a_decode_row(cost: CostModel) -> float:
    """Seconds of a step of one decode row and a chunk of 256 tokens, each after 1,000 tokens of context."""
    none = np.zeros(0, dtype=np.int32)
    counts = np.array([1, 256], dtype=np.int32)
    first = np.array([1_000, 1_000], dtype=np.int32)
    sample = np.array([True, False])
    slots = np.array([0, 1], dtype=np.int32)
    step = Step(0, Phase.MIXED, (), slots, first, counts, sample, none, none)
    return cost.stage_seconds(step)[0]


@pytest.mark.parametrize("kind", PRICES)
def test_the_first_amount_of_each_price_is_free_and_the_next_ones_are_dearer(kind: str) -> None:
    times = [
        chunk_beside_a_decode_row(priced(FREE, kind, amount)) for amount in PRICES[kind].amounts
    ]
    assert times[0] == chunk_beside_a_decode_row(FREE)
    assert sorted(set(times)) == times


def test_phases_overtake_where_the_lines_between_two_points_cross() -> None:
    assert crossing([point(0.0, 90.0, 100.0), point(4.0, 90.0, 60.0)]) == pytest.approx(1.0)


def test_phases_that_never_lead_overtake_nowhere() -> None:
    assert crossing([point(0.0, 90.0, 100.0), point(4.0, 90.0, 91.0)]) is None


def test_phases_that_lead_from_the_start_overtake_there() -> None:
    assert crossing([point(1.0, 90.0, 80.0), point(4.0, 90.0, 70.0)]) == 1.0


def test_the_picture_has_a_panel_for_each_price(tmp_path: Path) -> None:
    points = [point(1.0, 90.0, 100.0), point(4.0, 90.0, 60.0)]
    draw(tmp_path / "picture.png", "a title", {"replay": points, "rereads": points})
    assert (tmp_path / "picture.png").stat().st_size > 0
