"""What a warm-up measures on fast and slow pipelines, and the costs that are fitted to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tdpipe.controller.warm_up import WarmUp
from tdpipe.core.attempt import FIRST_ATTEMPT
from tdpipe.core.capacity import Capacity
from tdpipe.core.step import StepOutput
from tdpipe.pipeline.base import StageDevice, StepResult
from tdpipe.scheduling.cost_fit import fit_cost
from tdpipe.scheduling.cost_model import CHUNK_TILE, CostModel, kv_reads

if TYPE_CHECKING:
    from tdpipe.core.step import Step

PER_CONTEXT = 2e-6


class TimedPipeline:
    """One stage whose steps take a known time of its own clock, with some noise."""

    attempt = FIRST_ATTEMPT
    stages = 1
    devices: tuple[StageDevice, ...] = ()

    def __init__(self, capacity: Capacity, fixed: float, per_token: float) -> None:
        self.capacity = capacity
        self.now = 0.0
        self.step_ids: list[int] = []
        self._fixed, self._per_token = fixed, per_token
        self._noise = np.random.default_rng(0)
        self._done: list[StepResult] = []

    def seconds(self, tokens: int, context: float) -> float:
        return self._fixed + self._per_token * tokens + PER_CONTEXT * context

    def submit(self, step: Step) -> None:
        read = kv_reads(step.first, step.counts, CHUNK_TILE)
        took = self.seconds(step.tokens, read) * self._noise.normal(1.0, 0.01)
        self.now += took
        self.step_ids.append(step.id)
        sampled = np.zeros(int(step.sample.sum()), dtype=np.int32)
        self._done.append(StepResult(StepOutput(step.id, sampled), (took,)))

    def poll(self, timeout: float | None) -> list[StepResult]:
        del timeout
        done, self._done = self._done, []
        return done

    def wake(self) -> None: ...

    def close(self) -> None: ...


def fitted(
    monkeypatch: pytest.MonkeyPatch, pipeline: TimedPipeline, budget: int = 512
) -> CostModel:
    monkeypatch.setattr(time, "monotonic", lambda: pipeline.now)
    warming = WarmUp(pipeline, budget, 3.0)
    warming.run()
    assert pipeline.step_ids == list(range(warming.next_step))
    return fit_cost(warming.observations)


def capacity(*, blocks: int = 1_000, slots: int = 64, max_context: int = 2_048) -> Capacity:
    return Capacity(blocks=blocks, block_size=16, slots=slots, max_context=max_context)


def test_a_fast_pipelines_costs_are_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = TimedPipeline(capacity(), 2e-3, 2e-5)
    cost = fitted(monkeypatch, pipeline)
    for tokens, context in ((1, 0), (64, 20_000), (512, 0)):
        expected = pipeline.seconds(tokens, context)
        assert cost.step_time(tokens, context) == pytest.approx(expected, rel=0.1)


def test_a_slow_pipeline_is_measured_at_one_token_and_at_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = TimedPipeline(capacity(), 0.5, 0.01)
    cost = fitted(monkeypatch, pipeline)
    for tokens in (1, 512):
        expected = pipeline.seconds(tokens, 0)
        assert cost.step_time(tokens, 0) == pytest.approx(expected, rel=0.1)
    assert cost.step_time(16, 4_000) < 1.5 * pipeline.seconds(16, 4_000)
    assert pipeline.now < 30


@pytest.mark.parametrize(
    "small", [capacity(blocks=85), capacity(blocks=4), capacity(slots=1), capacity(max_context=2)]
)
def test_costs_from_a_small_cache_are_plausible(
    monkeypatch: pytest.MonkeyPatch, small: Capacity
) -> None:
    pipeline = TimedPipeline(small, 2e-3, 2e-5)
    cost = fitted(monkeypatch, pipeline)
    assert cost.step_time(1, 0) == pytest.approx(pipeline.seconds(1, 0), rel=0.1)
    assert cost.step_time(8, 2_000) < 2 * pipeline.seconds(8, 2_000)
