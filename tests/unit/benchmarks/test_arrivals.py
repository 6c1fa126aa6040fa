"""Offered load, latency targets and latency floors of the arrivals benchmark."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.arrivals import (
    Target,
    latency_floor,
    offered_rate,
    scale_arrivals,
    trace_window,
    with_target,
)

from tdpipe.core.lengths import LengthDistribution
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.simulation.figures import Figures, Part
from tdpipe.simulation.trace import TraceRow
from tdpipe.simulation.workload import Job

ROWS = [TraceRow(10, 20, 0.0), TraceRow(10, 30, 5.0), TraceRow(10, 50, 10.0)]


def figures(ttft: tuple[float, ...], tpot: tuple[float, ...]) -> Figures:
    part = Part(1.0, 1.0)
    return Figures(
        policy="adaptive",
        output_tokens_per_second=1.0,
        steady_tokens_per_second=1.0,
        ramp=part,
        drain=part,
        seconds=1.0,
        bubble_free_seconds=1.0,
        utilisation=(1.0,),
        bubble=(0.0,),
        phase_switches=0,
        preemptions=0,
        kv_peak=1.0,
        kv_mean=1.0,
        ttft=ttft,
        tpot=tpot,
    )


def test_scaled_arrivals_offer_less_load_and_keep_the_bursts() -> None:
    assert offered_rate(ROWS) == pytest.approx(10.0)
    slower = scale_arrivals(ROWS, 4.0)
    assert offered_rate(slower) == pytest.approx(2.5)
    assert [row.arrival for row in slower] == [0.0, 20.0, 40.0]


def test_rows_without_times_arrive_at_random_about_once_per_second() -> None:
    rows = [TraceRow(10, 20, 0.0)] * 500
    arrivals = [row.arrival for row in trace_window(rows, 400, 0)]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == 0.0
    assert 300 < arrivals[-1] < 500


def test_a_target_is_met_when_each_of_its_bounds_holds_at_the_percentile() -> None:
    run = figures((0.5, 1.0, 3.0), (0.05, 0.1, 0.2))
    assert Target(ttft=1.0).met(run, 1)
    assert not Target(ttft=1.0).met(run, 2)
    assert not Target(ttft=4.0, tpot=0.15).met(run, 2)
    assert Target().met(run, 2)


def test_a_target_without_figures_is_not_met() -> None:
    run = figures((math.nan,) * 3, (math.nan,) * 3)
    assert not Target(ttft=1.0).met(run, 2)


def test_a_target_sets_the_targets_of_adaptive() -> None:
    settings = with_target(Target(2.0, 0.1)).settings
    assert (settings.ttft_target, settings.tpot_target) == (2.0, 0.1)


def test_the_floor_is_the_latency_of_the_best_chunk_size() -> None:
    points = np.array([1, 64, 128, 1_024], dtype=np.int32)
    cost = CostModel((StageCost(points, np.array([0.01, 0.01, 0.02, 0.16])),) * 4)
    floor = latency_floor(cost, [Job(128, 10, LengthDistribution((10,)), 10)])
    # Two chunks of 64: the second starts 10 ms later and passes four stages.
    assert floor.ttft[2] == pytest.approx(0.05)
    assert floor.tpot[2] == pytest.approx(0.04)


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_the_floor_includes_the_time_of_each_stage(slow: int) -> None:
    points = np.array([1, 64, 128, 1_024], dtype=np.int32)
    stages = [StageCost(points, np.array([0.01, 0.01, 0.02, 0.16]))] * 3
    stages[slow] = StageCost(points, np.array([0.03, 0.03, 0.05, 0.4]), 0.0, 0.005)
    floor = latency_floor(CostModel(tuple(stages)), [Job(128, 10, LengthDistribution((10,)), 10)])
    # Two chunks of 64 take the slow stage 30 and 35 ms, one after the other, and the two others 10 ms each.
    assert floor.ttft[2] == pytest.approx(0.085)
    assert floor.tpot[2] == pytest.approx(0.055)


def test_the_floor_includes_sampling_for_the_last_chunk_only() -> None:
    points = np.array([1, 1_024], dtype=np.int32)
    cost = CostModel((StageCost(points, np.array([0.01, 0.01]), 0.0, 0.001),))
    floor = latency_floor(cost, [Job(128, 10, LengthDistribution((10,)), 10)])
    assert floor.ttft[2] == pytest.approx(0.011)
