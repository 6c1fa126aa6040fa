from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.core.errors import PipelineError
from tdpipe.core.settings import PipelineSettings
from tdpipe.pipeline.in_process import start_in_process
from tests.support.fake_executor import FakeStages, continuation
from tests.support.step_driver import Driver, row_step, start_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdpipe.pipeline.stage_group import StagePipeline

    Start = Callable[..., StagePipeline]

PROMPTS = [[1, 2, 3], [4] * 20, [5, 6], [7]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[StagePipeline] = []

    def start_stages(builder: FakeStages, **settings: float) -> StagePipeline:
        chosen = PipelineSettings(stages=builder.stages, **settings)  # type: ignore[arg-type]
        pipeline = start_in_process(chosen, builder, torch.device("cpu"), print)
        started.append(pipeline)
        return pipeline

    yield start_stages
    for pipeline in started:
        pipeline.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("stage-")]


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("in_flight", [1, 3, 8])
def test_tokens_do_not_depend_on_stages_or_steps_in_flight(
    start: Start, stages: int, in_flight: int
) -> None:
    driver = Driver(start(FakeStages(stages)), in_flight)
    assert driver.generate(PROMPTS, 12) == [continuation(prompt, 12) for prompt in PROMPTS]


def test_results_come_in_order_with_the_busy_seconds_of_every_stage(start: Start) -> None:
    driver = Driver(start(FakeStages(3, step_seconds=0.001)), in_flight=4)
    driver.generate(PROMPTS, 5)
    assert [result.output.step for result in driver.results] == list(range(10))
    assert all(len(result.busy) == 3 for result in driver.results)
    # The time that a stage waits for the stages before it does not count as computing.
    assert all(min(result.busy) >= 0.001 for result in driver.results)


def test_the_stage_with_the_least_room_determines_the_number_of_blocks(start: Start) -> None:
    assert start(FakeStages(3, blocks=(30, 20, 40))).capacity.blocks == 20


def test_progress_names_each_stage_as_it_is_loaded() -> None:
    lines: list[str] = []
    builder = FakeStages(2)
    start_in_process(PipelineSettings(), builder, torch.device("cpu"), lines.append).close()
    assert [line.split(" loaded")[0] for line in lines] == [
        "stage 0: fake layer 0",
        "stage 1: fake layer 1",
    ]


def test_a_failing_stage_is_named_with_its_own_traceback(start: Start) -> None:
    pipeline = start(FakeStages(3, fails=(1, 2)))
    driver = Driver(pipeline)
    with pytest.raises(PipelineError, match=r"(?s)stage 1 failed.*step 2 does not add up"):
        driver.generate(PROMPTS, 5)
    assert [result.output.step for result in driver.results] in ([], [0], [0, 1])
    with pytest.raises(PipelineError, match="stage 1 failed"):
        pipeline.poll(10)


def test_a_lost_step_is_an_error_and_not_a_wrong_result(start: Start) -> None:
    pipeline = start(FakeStages(1))
    pipeline.submit(row_step(1, [(0, 0, 1, True)], (start_of(0, 1, [5]),)))
    with pytest.raises(PipelineError, match="received step 1, but step 0 is next"):
        pipeline.poll(10)


def test_poll_returns_an_empty_list_after_the_timeout(start: Start) -> None:
    assert start(FakeStages(2)).poll(0.01) == []


def test_wake_ends_a_blocked_poll(start: Start) -> None:
    pipeline = start(FakeStages(1))
    waker = threading.Timer(0.05, pipeline.wake)
    waker.start()
    assert pipeline.poll(None) == []
    waker.join()


def test_a_wake_before_poll_is_not_lost(start: Start) -> None:
    pipeline = start(FakeStages(1))
    pipeline.wake()
    assert pipeline.poll(None) == []


def test_no_result_within_the_step_timeout_is_an_error(start: Start) -> None:
    pipeline = start(FakeStages(2, step_seconds=1.0), step_timeout=0.05)
    pipeline.submit(row_step(0, [(0, 0, 1, True)], (start_of(0, 1, [5]),)))
    with pytest.raises(PipelineError, match=r"pipeline\.step_timeout"):
        pipeline.poll(None)


def test_an_idle_pipeline_does_not_count_as_hung(start: Start) -> None:
    pipeline = start(FakeStages(1), step_timeout=0.01)
    assert pipeline.poll(0.05) == []


def test_close_stops_stages_that_have_unfinished_steps(start: Start) -> None:
    pipeline = start(FakeStages(2, step_seconds=0.01))
    tokens = [5] * 20
    pipeline.submit(row_step(0, [(0, 0, 20, True)], (start_of(0, 1, tokens),)))
    for number in range(1, 50):
        pipeline.submit(row_step(number, [(0, 19 + number, 1, True)]))
    pipeline.close()
    pipeline.close()
