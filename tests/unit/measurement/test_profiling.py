"""Profiling of a pipeline whose times are known."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from tdpipe.core.capacity import Capacity
from tdpipe.core.latencies import Latencies
from tdpipe.measurement.profile_fit import ProfileFit, fit_profile
from tdpipe.measurement.profiling import Measurements, Profiling, StepKind
from tdpipe.scheduling.cost_model import CostModel, MixingCost, StageCost
from tests.support.timeline_pipeline import TimelinePipeline

CAPACITY = Capacity(blocks=4_000, block_size=16, slots=64, max_context=2_048)
LATENCIES = Latencies(step=2e-4, activations=1e-4, activation_token=1e-6, feedback=2e-4)
PER_KV = (2e-7, 1e-7)
PER_SAMPLED = 5e-5
"""Seconds per sampled token on the last stage."""


def staircase(scale: float, per_kv: float, per_sampled: float = 0.0) -> StageCost:
    """10 ms up to 100 tokens, 16 ms up to 300, then a step and a slope."""
    tokens = np.array([1, 100, 101, 300, 301, 2_048], dtype=np.int32)
    seconds = scale * np.array([0.010, 0.010, 0.016, 0.016, 0.020, 0.100])
    return StageCost(tokens, seconds, per_kv, per_sampled)


TRUTH = CostModel(
    (staircase(1.0, PER_KV[0]), staircase(0.7, PER_KV[1], PER_SAMPLED)),
    MixingCost(seconds=0.003, decode_context=1.5),
    chunk_tile=32,
)


def measured(
    monkeypatch: pytest.MonkeyPatch,
    *,
    cost: CostModel = TRUTH,
    capacity: Capacity = CAPACITY,
    seconds: float = 60.0,
    noise: float = 0.0,
) -> tuple[TimelinePipeline, Measurements, ProfileFit]:
    pipeline = TimelinePipeline(cost, capacity, LATENCIES, noise)
    monkeypatch.setattr(time, "monotonic", lambda: pipeline.now)
    measurements = Profiling(pipeline, 512, seconds, lambda _: None).run()
    return pipeline, measurements, fit_profile(measurements.steps)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_edges_of_the_staircase_are_found(
    monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    _, _, fit = measured(monkeypatch, noise=noise)
    for tokens in (1, 60, 99, 100, 101, 102, 200, 300, 1_000, 2_048):
        for sampled in (1, min(tokens, 32)):
            expected = TRUTH.step_time(tokens, 0, sampled)
            found = fit.cost.step_time(tokens, 0, sampled)
            assert found == pytest.approx(expected, rel=0.04), (tokens, sampled)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_cost_of_reading_kv_is_found_on_each_stage(
    monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    _, _, fit = measured(monkeypatch, noise=noise)
    found = [stage.per_context for stage in fit.cost.stages]
    assert found == pytest.approx(PER_KV, rel=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_cost_of_sampling_is_found_on_the_stage_that_samples(
    monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    _, _, fit = measured(monkeypatch, noise=noise)
    first, last = (stage.per_sampled for stage in fit.cost.stages)
    assert first == 0.0
    assert last == pytest.approx(PER_SAMPLED, rel=0.15)


def test_the_costs_of_chunks_and_mixed_steps_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, fit = measured(monkeypatch)
    assert fit.chunk_tile == pytest.approx(32, abs=1)
    assert fit.mixing.seconds == pytest.approx(0.003, rel=0.05)
    assert fit.mixing.decode_context == pytest.approx(1.5, rel=0.05)
    assert set(fit.errors) == set(StepKind)
    assert max(error.worst for error in fit.errors.values()) < 0.02, fit.errors


def test_the_latencies_of_messages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _, measurements, _ = measured(monkeypatch)
    found = measurements.latencies
    assert found.step == pytest.approx(LATENCIES.step, rel=0.05)
    assert found.feedback == pytest.approx(LATENCIES.feedback, rel=0.05)
    assert found.activations == pytest.approx(LATENCIES.activations, rel=0.05)
    assert found.activation_token == pytest.approx(LATENCIES.activation_token, rel=0.05)


def test_steps_are_measured_with_all_stages_busy_and_numbered_without_gaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, measurements, _ = measured(monkeypatch)
    assert [step.id for step in pipeline.steps] == list(range(len(pipeline.steps)))
    decode = measurements.steps[StepKind.DECODE]
    waits = sum(after.submitted >= before.done for before, after in pairwise(decode))
    assert waits < len(decode) / 10
    assert pipeline.max_in_flight >= pipeline.stages + 1


def test_it_ends_about_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = CostModel(tuple(StageCost(s.table_tokens, 30 * s.table_seconds) for s in TRUTH.stages))
    pipeline, _, fit = measured(monkeypatch, cost=slow, seconds=30.0)
    assert pipeline.now < 90.0
    for tokens in (1, 256, 512):
        assert fit.cost.step_time(tokens, 0) == pytest.approx(slow.step_time(tokens, 0), rel=0.1)


@pytest.mark.parametrize(
    "small",
    [
        Capacity(blocks=40, block_size=16, slots=64, max_context=2_048),
        Capacity(blocks=1, block_size=16, slots=64, max_context=2_048),
        Capacity(blocks=4_000, block_size=16, slots=1, max_context=2_048),
        Capacity(blocks=4_000, block_size=16, slots=8, max_context=20),
        Capacity(blocks=4_000, block_size=16, slots=8, max_context=2),
    ],
    ids=str,
)
def test_a_small_cache_is_never_exceeded(monkeypatch: pytest.MonkeyPatch, small: Capacity) -> None:
    pipeline, _, fit = measured(monkeypatch, capacity=small, seconds=5.0)
    held: dict[int, int] = {}
    for step in pipeline.steps:
        for start in step.starts:
            assert len(start.tokens) <= small.max_context
            held[start.slot] = 0
        for slot in step.block_slots.tolist():
            held[slot] += 1
        assert step.slots.max() < small.slots
        assert not len(step.blocks) or step.blocks.max() < small.blocks
        for slot, end in zip(step.slots.tolist(), (step.first + step.counts).tolist(), strict=True):
            assert end <= min(held[slot] * small.block_size, small.max_context)
    assert fit.cost.step_time(1, 0) == pytest.approx(TRUTH.step_time(1, 0), rel=0.1)
