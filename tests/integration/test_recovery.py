"""The engine over pipelines that fail: requests outlive them, and nothing is emitted twice or lost."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tdpipe.controller.engine import Engine
from tdpipe.controller.pipeline_starter import PipelineStarter
from tdpipe.controller.readiness import Readiness
from tdpipe.controller.recovery import Recovery
from tdpipe.controller.restart_budget import RestartBudget
from tdpipe.core.errors import (
    PipelineError,
    RecoveryBudgetError,
    RequestError,
    SettingsError,
    StageMemoryError,
    TDPipeError,
    WorkersChangedError,
    WorkersMissingError,
)
from tdpipe.core.sampling import SamplingParams
from tdpipe.prediction.survival_predictor import SurvivalPredictor
from tdpipe.scheduling.policies.adaptive import AdaptivePolicy
from tdpipe.scheduling.policies.hybrid import HybridPolicy
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.scheduler import Scheduler
from tests.support.fake_executor import VOCABULARY, FakeStages, continuation
from tests.support.flaky_host import FlakyHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdpipe.controller.stream import RequestStream
    from tdpipe.scheduling.policy import Policy

    Start = Callable[..., Engine]

GREEDY = SamplingParams()
POLICIES: dict[str, Callable[[], Policy]] = {
    "temporal": lambda: TemporalPolicy(24, 0.0, 1.0),
    "hybrid": lambda: HybridPolicy(24),
    "adaptive": lambda: AdaptivePolicy(24),
}
WARM_UP_STEPS = 200
"""A number of steps that the warm-up of a pipeline of fake stages does not reach."""


@pytest.fixture
def start() -> Iterator[Start]:
    engines: list[Engine] = []

    def start_engine(
        host: FlakyHost,
        policy: str = "hybrid",
        *,
        in_a_row: int = 3,
        patience: float = 60.0,
        queue: int = 100,
    ) -> Engine:
        starter = PipelineStarter(host, None, 24)
        started = starter.start(print)
        pipeline = started.pipeline
        engines.append(
            Engine(
                pipeline,
                Scheduler(POLICIES[policy](), pipeline.capacity, started.cost, started.first_step),
                SurvivalPredictor(),
                VOCABULARY,
                Recovery(starter, RestartBudget(in_a_row, per_hour=100), print),
                Readiness(proven=False, patience=patience, queue=queue),
            )
        )
        return engines[-1]

    yield start_engine
    for engine in engines:
        engine.close()


def submit(engine: Engine, prompt: list[int], max_tokens: int, name: str) -> RequestStream:
    return engine.submit(tuple(prompt), max_tokens, GREEDY, frozenset(), name)


async def collect(stream: RequestStream) -> list[int]:
    return [token async for delta in stream for token in delta.tokens]


async def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
async def test_every_request_gets_its_tokens_once_through_several_failures(
    start: Start, policy: str, stages: int
) -> None:
    scripts = [
        FakeStages(stages, blocks=(20,), fails=(stages - 1, WARM_UP_STEPS + extra))
        for extra in (20, 11, 3)
    ]
    host = FlakyHost([*scripts, FakeStages(stages, blocks=(20,))])
    engine = start(host, policy)
    prompts = [[number] * (1 + 7 * number % 40) for number in range(30)]
    streams = [submit(engine, prompt, 120, str(prompt)) for prompt in prompts]
    outputs = await asyncio.gather(*map(collect, streams))
    assert outputs == [continuation(prompt, 120) for prompt in prompts]
    assert host.starts == 4
    assert engine.snapshot().restarts == 3


async def test_requests_may_come_and_go_while_the_stages_restart(start: Start) -> None:
    hold = threading.Event()
    failing = FakeStages(2, fails=(1, WARM_UP_STEPS))
    engine = start(FlakyHost([failing, FakeStages(2)], hold))
    running = submit(engine, [1], 240, "running")
    gone = submit(engine, [2], 240, "gone")
    await wait_until(lambda: "held" in engine._recovery.step)  # type: ignore[union-attr]
    gone.abort()
    late = submit(engine, [3], 5, "late")
    hold.set()
    assert await collect(running) == continuation([1], 240)
    assert await collect(late) == continuation([3], 5)
    assert engine.snapshot().running == 0


async def test_requests_that_no_longer_fit_fail_and_the_others_go_on(start: Start) -> None:
    failing = FakeStages(2, blocks=(16,), fails=(0, WARM_UP_STEPS))
    engine = start(FlakyHost([failing, FakeStages(2, blocks=(4,))]))
    large = submit(engine, [1], 200, "large")
    small = submit(engine, [2], 50, "small")
    with pytest.raises(RequestError, match="may have 64 tokens"):
        await collect(large)
    assert await collect(small) == continuation([2], 50)
    with pytest.raises(RequestError):
        submit(engine, [1], 64, "too large now")


async def test_stages_that_serve_nothing_between_restarts_end_the_engine(start: Start) -> None:
    failing = FakeStages(2, fails=(1, WARM_UP_STEPS))
    host = FlakyHost([failing, PipelineError("no start")])
    engine = start(host, in_a_row=2)
    with pytest.raises(RecoveryBudgetError, match=r"2 restarts in a row.*no start"):
        await collect(submit(engine, [1], 240, "a"))
    assert host.starts == 3
    health = engine.health()
    assert isinstance(health.error, RecoveryBudgetError)
    assert not health.ready
    with pytest.raises(RecoveryBudgetError):
        submit(engine, [1], 5, "b")


@pytest.mark.parametrize(
    "error",
    [
        SettingsError("cache.memory", "is too much", "set less"),
        WorkersMissingError("1 of 2 workers are here"),
        StageMemoryError("stage 1 ran out of memory"),
    ],
)
async def test_some_failures_of_a_restart_are_final(start: Start, error: TDPipeError) -> None:
    host = FlakyHost([FakeStages(2, fails=(1, WARM_UP_STEPS)), error, FakeStages(2)])
    engine = start(host)
    with pytest.raises(type(error)):
        await collect(submit(engine, [1], 240, "a"))
    assert engine.health().error is error


async def test_moving_to_other_workers_costs_no_restart(start: Start) -> None:
    failing = FakeStages(2, fails=(1, WARM_UP_STEPS))
    moves = [WorkersChangedError("a worker has left")] * 3
    engine = start(FlakyHost([failing, *moves, FakeStages(2)]), in_a_row=1)
    assert await collect(submit(engine, [1], 240, "a")) == continuation([1], 240)


async def test_no_restart_is_made_where_none_is_allowed(start: Start) -> None:
    host = FlakyHost([FakeStages(2, fails=(1, WARM_UP_STEPS))])
    engine = start(host, in_a_row=0)
    with pytest.raises(PipelineError, match=r"^stage 1 failed"):
        await collect(submit(engine, [1], 240, "a"))
    assert host.starts == 1


async def test_closing_ends_a_restart_within_seconds(start: Start) -> None:
    host = FlakyHost([FakeStages(2, fails=(1, WARM_UP_STEPS)), FakeStages(2)], threading.Event())
    engine = start(host)
    stream = submit(engine, [1], 240, "a")
    await wait_until(lambda: host.starts == 2)
    began = time.monotonic()
    await asyncio.to_thread(engine.close)
    assert time.monotonic() - began < 4.0
    assert host.closed
    with pytest.raises(TDPipeError):
        await collect(stream)


async def test_requests_queue_up_to_a_bound_and_for_some_time_while_the_stages_restart(
    start: Start,
) -> None:
    host = FlakyHost([FakeStages(2, fails=(1, WARM_UP_STEPS)), FakeStages(2)], threading.Event())
    engine = start(host, patience=1.0, queue=2)
    await asyncio.to_thread(engine.await_ready)
    assert engine.health().ready
    submit(engine, [1], 240, "a")
    await wait_until(lambda: host.starts == 2)
    assert engine.health().ready
    submit(engine, [2], 240, "b")
    await wait_until(lambda: not engine.health().ready)
    assert "2 requests wait already; held" in (engine.health().reason or "")
    await wait_until(lambda: "have been restarting" in (engine.health().reason or ""))
    assert engine.health().alive


async def test_the_engine_is_ready_once_a_token_was_generated(start: Start) -> None:
    engine = start(FlakyHost([FakeStages(2, step_seconds=0.02)]))
    assert engine.health().reason == "no token has been generated yet"
    await asyncio.to_thread(engine.await_ready)
    assert engine.health().ready
