"""The figures of a run, computed from its record."""

from __future__ import annotations

import pytest

from tdpipe.simulation.figures import Part, figures_of
from tdpipe.simulation.record import KVSample, RequestTimes, SimulationRecord


def run(used: list[int], firsts: list[float], idle: float = 0.0) -> SimulationRecord:
    """Return a run that makes ten tokens per second and samples KV use once per second."""
    seconds = float(len(used))
    return SimulationRecord(
        seconds=seconds,
        requests=tuple(RequestTimes(0.0, 5, first, seconds) for first in firsts),
        output_tokens=10 * len(used),
        prompt_tokens=1,
        stage_busy=(seconds - idle, (seconds - idle) / 2),
        phase_switches=3,
        preemptions=1,
        kv=tuple(KVSample(1.0 + at, blocks, 10) for at, blocks in enumerate(used)),
        kv_blocks=100,
        idle=idle,
    )


def test_ramp_ends_when_kv_is_as_full_as_in_steady_state() -> None:
    figures = figures_of("hybrid", run([10, 40, 80, 80, 80, 80, 80, 80, 40, 10], [1.0, 3.0]))
    assert figures.kv_mean == pytest.approx(0.8)
    assert figures.ramp == Part(3.0, 10.0)


def test_drain_begins_when_the_last_request_has_its_first_token() -> None:
    figures = figures_of("hybrid", run([80] * 10, [1.0, 8.0, 3.0]))
    assert figures.drain == Part(2.0, 10.0)


def test_bubbles_are_what_a_stage_does_not_compute() -> None:
    figures = figures_of("hybrid", run([80] * 10, [1.0]))
    assert figures.utilisation == (1.0, 0.5)
    assert figures.bubble == (0.0, 0.5)
    assert figures.bubble_free_seconds == 10.0


def test_time_without_a_request_is_no_bubble() -> None:
    figures = figures_of("hybrid", run([80] * 10, [1.0], idle=4.0))
    assert figures.utilisation == pytest.approx((0.6, 0.3))
    assert figures.bubble == pytest.approx((0.0, 0.3))
