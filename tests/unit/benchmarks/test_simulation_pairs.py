from __future__ import annotations

import pytest
from benchmarks.simulation_pairs import Pair, Side, agreement, report
from benchmarks.systems.run import StepTime

from tdpipe.core.step import Phase
from tdpipe.measurement.profile_fit import KindError


def make_pair(measured: float, simulated: float, bubble: float, simulated_bubble: float) -> Pair:
    steps = (StepTime(Phase.DECODE, 32, (1.0, 1.0), (1.1, 0.9)),)
    return Pair(
        "adaptive",
        Side(measured, (bubble, 0.5), 1),
        Side(simulated, (simulated_bubble, 0.5), 2),
        {"decode": KindError(9, 0.02, 0.0, 0.05, 0.01)},
        steps,
        (0.0, 0.1),
    )


def test_one_disturbed_pair_does_not_change_the_agreement() -> None:
    pairs = [
        make_pair(100.0, 110.0, 0.10, 0.12),
        make_pair(100.0, 300.0, 0.10, 0.60),
        make_pair(100.0, 108.0, 0.10, 0.11),
    ]
    found = agreement(pairs)
    assert found.ratio == pytest.approx(1.10)
    assert found.bubble == pytest.approx((0.02, 0.0))


def test_the_report_has_a_row_for_each_pair_and_the_medians() -> None:
    pairs = [make_pair(100.0, 110.0, 0.10, 0.12), make_pair(90.0, 110.0, 0.10, 0.12)]
    text = "\n".join(report({"adaptive": pairs}))
    assert sum(line.startswith("| adaptive |") for line in text.splitlines()) == 2
    assert "medians of 2 pairs: simulated / engine 1.161" in text
    assert "+2.0 · +0.0 points" in text
