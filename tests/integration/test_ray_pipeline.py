from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tdpipe.core.errors import PipelineError
from tdpipe.core.settings import PipelineSettings
from tdpipe.pipeline.ray.host import start_on_ray
from tests.support.fake_executor import FakeStages, continuation
from tests.support.step_driver import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdpipe.pipeline.stage_group import StagePipeline

    Start = Callable[..., StagePipeline]

pytestmark = pytest.mark.usefixtures("ray_cluster")

ROOT = Path(__file__).parents[2]
PROMPTS = [[1, 2, 3], [4] * 20, [5, 6], [7]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[StagePipeline] = []

    def start_stages(builder: FakeStages, **settings: float) -> StagePipeline:
        chosen = PipelineSettings(stages=builder.stages, **settings)  # type: ignore[arg-type]
        pipeline = start_on_ray(chosen, builder, "cpu", print)
        started.append(pipeline)
        return pipeline

    yield start_stages
    for pipeline in started:
        pipeline.close()


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_in_actors_generate_the_same_tokens_as_one_process(
    start: Start, stages: int
) -> None:
    driver = Driver(start(FakeStages(stages)), in_flight=4, micro_batches=3)
    assert driver.generate(PROMPTS, 60) == [continuation(prompt, 60) for prompt in PROMPTS]
    assert [result.output.step for result in driver.results] == list(range(180))
    assert all(len(result.busy) == stages for result in driver.results)


def test_a_failing_actor_is_named_with_its_own_traceback(start: Start) -> None:
    pipeline = start(FakeStages(2, fails=(1, 4)))
    with pytest.raises(PipelineError, match=r"(?s)^stage 1 failed.*step 4 does not add up"):
        Driver(pipeline).generate(PROMPTS, 10)


def test_a_killed_process_is_detected_and_named(start: Start) -> None:
    pipeline = start(FakeStages(2, kills_itself=(1, 4)))
    with pytest.raises(PipelineError, match=r"^the process of stage 1 died"):
        Driver(pipeline).generate(PROMPTS, 10)


def test_a_stage_that_cannot_load_fails_the_start(start: Start) -> None:
    with pytest.raises(PipelineError, match=r"(?s)stage 0 could not load.*no room"):
        start(FakeStages(1, fails_to_load=0))


def test_stages_that_cannot_be_placed_are_an_error_with_the_requested_resources(
    start: Start,
) -> None:
    with pytest.raises(PipelineError, match=r"no place for 2 stages of 100 CPU.*has 8 CPU"):
        start(FakeStages(2), threads_per_stage=100, start_timeout=1)


def test_close_leaves_no_process_of_the_ray_that_tdpipe_started() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.own_ray"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == {"right": True, "stages": 2, "left": []}
