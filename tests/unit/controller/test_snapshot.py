from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdpipe.controller.snapshot import StageClock


def test_time_without_computing_while_a_step_is_in_flight_is_bubble() -> None:
    clock = StageClock(2)
    clock.started(10.0)
    clock.completed((3.0, 1.0), in_flight=0, now=14.0)
    assert clock.busy == (3.0, 1.0)
    assert clock.bubble == (1.0, 3.0)


def test_time_without_a_step_in_flight_is_no_bubble() -> None:
    clock = StageClock(1)
    clock.started(0.0)
    clock.completed((1.0,), in_flight=0, now=1.0)
    clock.started(100.0)
    clock.completed((2.0,), in_flight=0, now=103.0)
    assert clock.bubble == (1.0,)


def test_overlapping_steps_are_counted_once() -> None:
    clock = StageClock(2)
    clock.started(0.0)
    clock.started(1.0)
    clock.completed((1.0, 1.0), in_flight=1, now=2.0)
    clock.completed((1.0, 1.0), in_flight=0, now=3.0)
    assert clock.bubble == (1.0, 1.0)


@given(
    steps=st.lists(
        st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 9.0), st.integers(0, 3)), max_size=30
    )
)
def test_busy_and_bubble_never_decrease(steps: list[tuple[float, float, int]]) -> None:
    clock = StageClock(1)
    now, busy, bubble = 0.0, 0.0, 0.0
    for waited, seconds, in_flight in steps:
        clock.started(now)
        now += waited
        clock.completed((seconds,), in_flight, now)
        assert clock.busy[0] >= busy
        assert clock.bubble[0] >= bubble
        busy, bubble = clock.busy[0], clock.bubble[0]


def test_work_that_is_done_before_it_is_reported_is_no_bubble_in_the_end() -> None:
    """Stage 0 computes step 1 while stage 1 computes step 0, and reports it later."""
    clock = StageClock(2)
    clock.started(0.0)
    for step in range(1, 101):
        clock.completed((1.0, 1.0), in_flight=int(step < 100), now=step + 1.0)
    assert clock.bubble == pytest.approx((1.0, 1.0))
