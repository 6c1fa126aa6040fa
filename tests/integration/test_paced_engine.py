"""The real engine over paced stages, whose steps take a fraction of a millisecond."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tdpipe.controller.engine import Engine
from tdpipe.core.errors import SettingsError
from tdpipe.core.latencies import Latencies
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import FinishReason
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import PipelineSettings, SchedulerSettings
from tdpipe.measurement.paced_executor import END, OUTPUT
from tdpipe.measurement.paced_run import PacedPlan, compare_paced, run_paced
from tdpipe.measurement.paced_stages import PacedStages
from tdpipe.pipeline.in_process import start_in_process
from tdpipe.pipeline.ray.host import start_on_ray
from tdpipe.prediction.fixed_lengths import FixedLengths
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.workload import Job

if TYPE_CHECKING:
    from tdpipe.pipeline.stage_group import StagePipeline

FAST = StageCost(np.array([1, 64], dtype=np.int32), np.array([1e-4, 2e-4]), 1e-8)
KNOWN = LengthDistribution((20,))


def plan(stages: int, jobs: list[Job], policy: str = "temporal") -> PacedPlan:
    settings = SchedulerSettings(policy=policy, token_budget=64, max_running=16)  # type: ignore[arg-type]
    latencies = Latencies(step=1e-4, activations=1e-5, activation_token=1e-8, feedback=1e-4)
    return PacedPlan(CostModel((FAST,) * stages), 600, latencies, settings, jobs)


def make_jobs(count: int) -> list[Job]:
    random = np.random.default_rng(3)
    return [
        Job(int(random.integers(1, 60)), int(random.integers(1, 40)), KNOWN, 40)
        for _ in range(count)
    ]


async def outputs(
    engine: Engine, predictor: FixedLengths, jobs: list[Job]
) -> list[tuple[int, FinishReason | None]]:
    async def one(number: int, job: Job) -> tuple[int, FinishReason | None]:
        prompt = (job.output_tokens, *((OUTPUT,) * (job.prompt_tokens - 1)))
        predictor.lengths = job.lengths
        stream = engine.submit(
            prompt, job.max_tokens, SamplingParams(), frozenset({END}), str(number)
        )
        deltas = [delta async for delta in stream]
        return sum(len(delta.tokens) for delta in deltas), deltas[-1].finish

    return await asyncio.gather(*(one(number, job) for number, job in enumerate(jobs)))


def serve(pipeline: StagePipeline, paced: PacedPlan) -> list[tuple[int, FinishReason | None]]:
    scheduler = Scheduler(make_policy(paced.scheduler), paced.capacity, paced.cost)
    predictor = FixedLengths()
    engine = Engine(pipeline, scheduler, predictor, paced.capacity.max_context + 1)
    try:
        return asyncio.run(outputs(engine, predictor, list(paced.jobs)))
    finally:
        engine.close()


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("policy", ["adaptive", "temporal", "hybrid"])
def test_every_request_gets_its_length_despite_preemptions(stages: int, policy: str) -> None:
    paced = plan(stages, make_jobs(60), policy)
    builder = PacedStages(paced.cost, paced.capacity)
    pipeline = start_in_process(
        PipelineSettings(stages=stages), builder, torch.device("cpu"), lambda _: None
    )
    expected = [(job.output_tokens, FinishReason.STOP) for job in paced.jobs]
    assert serve(pipeline, paced) == expected


@pytest.mark.usefixtures("ray_cluster")
def test_paced_stages_run_in_actors() -> None:
    paced = plan(2, make_jobs(20))
    builder = PacedStages(paced.cost, paced.capacity)
    pipeline = start_on_ray(PipelineSettings(stages=2), builder, "cpu", lambda _: None)
    assert [length for length, _ in serve(pipeline, paced)] == [
        job.output_tokens for job in paced.jobs
    ]


def test_a_run_and_its_simulations_are_compared_up_to_the_same_number_of_tokens() -> None:
    compared = compare_paced(
        plan(2, make_jobs(4_000)), lambda _: None, ramp=0.3, seconds=0.7, in_process=True
    )
    paced = compared.paced.window
    assert paced.tokens > 0
    assert len(paced.stages) == 2
    for simulated in (compared.ideal, compared.simulated):
        # A simulation is cut at the end of a step, so they differ by less than the tokens of a micro-batch.
        assert abs(simulated.tokens - paced.tokens) <= 16
    assert compared.ideal.tokens_per_second >= compared.simulated.tokens_per_second
    assert compared.paced.scheduler_share <= compared.paced.controller_share


def test_too_few_requests_are_an_error() -> None:
    with pytest.raises(SettingsError, match=r"--requests: all 5 had ended"):
        run_paced(plan(2, make_jobs(5)), lambda _: None, ramp=1.0, seconds=60.0, in_process=True)
