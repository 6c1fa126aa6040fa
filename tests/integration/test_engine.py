"""The engine with fake stages whose tokens are known: every request gets its own."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.controller.engine import Engine
from tdpipe.controller.snapshot import EngineSnapshot
from tdpipe.core.errors import PipelineError, RequestError, ShutdownError
from tdpipe.core.request import FinishReason
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import PipelineSettings
from tdpipe.core.step import Phase
from tdpipe.pipeline.in_process import start_in_process
from tdpipe.prediction.survival_predictor import SurvivalPredictor
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.policies.adaptive import AdaptivePolicy
from tdpipe.scheduling.policies.hybrid import HybridPolicy
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.scheduler import Scheduler
from tests.support.fake_executor import VOCABULARY, FakeStages, continuation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.policy import Plan, Policy
    from tdpipe.scheduling.view import View

POLICIES = ("temporal", "hybrid", "adaptive")
GREEDY = SamplingParams()


def make_policy(name: str) -> Policy:
    if name == "temporal":
        return TemporalPolicy(24, 0.0, 1.0)
    return HybridPolicy(24) if name == "hybrid" else AdaptivePolicy(24)


def make_engine(policy: Policy, stages: FakeStages) -> Engine:
    pipeline = start_in_process(
        PipelineSettings(stages=stages.stages), stages, torch.device("cpu"), print
    )
    scheduler = Scheduler(policy, pipeline.capacity, proportional_cost(stages.stages))
    return Engine(pipeline, scheduler, SurvivalPredictor(), VOCABULARY)


@pytest.fixture(params=[(policy, stages) for policy in POLICIES for stages in (1, 2, 3)], ids=str)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    policy, stages = request.param
    made = make_engine(make_policy(policy), FakeStages(stages, blocks=(20,)))
    yield made
    made.close()


async def generate(
    engine: Engine, prompt: tuple[int, ...], max_tokens: int, name: str
) -> list[int]:
    tokens: list[int] = []
    async for delta in engine.submit(prompt, max_tokens, GREEDY, frozenset(), name):
        tokens += delta.tokens
    return tokens


async def all_blocks_free(engine: Engine) -> None:
    for _ in range(500):
        if engine.snapshot().kv_blocks_used == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{engine.snapshot().kv_blocks_used} blocks are still referenced")


async def test_concurrent_requests_get_their_own_tokens_with_a_small_kv_cache(
    engine: Engine,
) -> None:
    draw = random.Random(7)
    prompts = [
        tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 60))) for _ in range(40)
    ]
    lengths = [draw.randint(1, 60) for _ in prompts]
    answers = await asyncio.gather(
        *(
            generate(engine, p, n, str(i))
            for i, (p, n) in enumerate(zip(prompts, lengths, strict=True))
        )
    )
    for prompt, length, answer in zip(prompts, lengths, answers, strict=True):
        assert answer == continuation(list(prompt), length)
    await all_blocks_free(engine)


async def test_aborted_requests_leave_no_block(engine: Engine) -> None:
    draw = random.Random(11)

    async def abandon(name: str, after: int) -> None:
        stream = engine.submit((1, 2, 3), 100, GREEDY, frozenset(), name)
        for _ in range(after):
            await anext(stream)
        stream.abort()

    await asyncio.gather(*(abandon(str(i), draw.randint(0, 6)) for i in range(60)))
    await all_blocks_free(engine)
    assert engine.snapshot().running == 0


async def test_a_stop_token_ends_the_output_and_is_part_of_it(engine: Engine) -> None:
    expected = continuation([5, 6], 9)
    stream = engine.submit((5, 6), 50, GREEDY, frozenset({expected[-1]}), "a")
    deltas = [delta async for delta in stream]
    assert [token for delta in deltas for token in delta.tokens] == expected
    assert deltas[-1].finish is FinishReason.STOP


async def test_a_request_that_can_never_fit_is_rejected(engine: Engine) -> None:
    with pytest.raises(RequestError, match="prompt has 200 tokens"):
        engine.submit((1,) * 200, 100, GREEDY, frozenset(), "a")


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_failing_stage_fails_every_stream_with_its_traceback(policy: str) -> None:
    engine = make_engine(make_policy(policy), FakeStages(2, fails=(1, 5)))
    try:
        with pytest.raises(PipelineError, match="stage 1"):
            await asyncio.gather(*(generate(engine, (1, 2), 50, str(i)) for i in range(4)))
        assert not engine.health().ready
        with pytest.raises(PipelineError):
            engine.submit((1,), 1, GREEDY, frozenset(), "late")
    finally:
        engine.close()


@pytest.mark.parametrize("policy", POLICIES)
async def test_closing_fails_running_streams(policy: str) -> None:
    engine = make_engine(make_policy(policy), FakeStages(2, step_seconds=0.05))
    stream = engine.submit((1, 2), 200, GREEDY, frozenset(), "a")
    await anext(stream)
    await asyncio.to_thread(engine.close)
    with pytest.raises(ShutdownError):
        async for _ in stream:
            pass


class FailingPolicy(HybridPolicy):
    """A policy that raises an exception after a number of plans."""

    def __init__(self, plans: int) -> None:
        super().__init__(24)
        self._plans = plans

    def plan(self, view: View) -> Plan | None:
        self._plans -= 1
        if self._plans < 0:
            raise LookupError("no plan")
        return super().plan(view)


class ScriptedPhases(HybridPolicy):
    """A policy whose steps have the given phases, one after the other."""

    def __init__(self, phases: list[Phase]) -> None:
        super().__init__(24)
        self._phases = iter(phases)

    def plan(self, view: View) -> Plan | None:
        plan = super().plan(view)
        return None if plan is None else replace(plan, phase=next(self._phases))


P, D, M = Phase.PREFILL, Phase.DECODE, Phase.MIXED


@pytest.mark.parametrize(
    ("phases", "switches"),
    [
        ([P], 0),
        ([P, P, D, D], 1),
        ([P, D, P, D], 3),
        ([M, D, M, D, M], 0),
        ([P, M, D, M], 1),
    ],
    ids=str,
)
async def test_phase_switches_are_between_prefill_and_decode_only(
    phases: list[Phase], switches: int
) -> None:
    engine = make_engine(ScriptedPhases(phases), FakeStages(1))
    try:
        await generate(engine, (1, 2), len(phases), "a")
        assert (engine.snapshot().phase, engine.snapshot().phase_switches) == (phases[-1], switches)
    finally:
        engine.close()


async def test_before_the_first_step_the_phase_is_the_default_of_a_snapshot(engine: Engine) -> None:
    assert engine.snapshot().phase is EngineSnapshot().phase


@pytest.mark.parametrize("plans", [0, 1, 5])
async def test_a_failing_policy_fails_every_stream_and_leaves_none_waiting(plans: int) -> None:
    engine = make_engine(FailingPolicy(plans), FakeStages(2))
    try:
        answers = (generate(engine, (1, 2), 50, str(i)) for i in range(4))
        for error in await asyncio.gather(*answers, return_exceptions=True):
            assert isinstance(error, PipelineError)
            assert "no plan" in str(error)
        assert not engine.health().ready
    finally:
        engine.close()


async def test_a_duplicate_request_id_fails_only_the_second_request(engine: Engine) -> None:
    first = engine.submit((1, 2), 30, GREEDY, frozenset(), "a")
    second = engine.submit((3, 4), 30, GREEDY, frozenset(), "a")
    with pytest.raises(PipelineError, match="in use"):
        await anext(second)
    second.abort()
    assert [token async for delta in first for token in delta.tokens] == continuation([1, 2], 30)


async def test_a_request_without_a_prompt_or_output_is_rejected_at_once(engine: Engine) -> None:
    with pytest.raises(RequestError, match="at least 1"):
        engine.submit((), 5, GREEDY, frozenset(), "a")
    with pytest.raises(RequestError, match="at least 1"):
        engine.submit((1,), 0, GREEDY, frozenset(), "b")
