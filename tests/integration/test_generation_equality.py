"""Greedy output equals that of transformers, however requests are chunked, ordered and preempted.

The KV cache holds little more than one request and the predictor expects short outputs, so that policies admit too many
requests and preempt. The token budget is smaller than most prompts, so that these are chunked.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tdpipe.controller.engine import Engine
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import load_settings
from tdpipe.model.description import describe_model
from tdpipe.pipeline.checkpoint_stages import CheckpointStages
from tdpipe.pipeline.start import start_pipeline
from tdpipe.prediction.fixed_lengths import FixedLengths
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tests.support.checkpoints import KINDS, Example, Reference, tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


POLICIES = ("temporal", "hybrid", "adaptive", "throttled", "separate", "reference")
BACKENDS = ("sdpa", "cpu")
STAGES = (1, 2, 3, 4)
PROMPTS = [30, 3, 41, 17, 1, 12, 26, 9]
OUTPUT = 20
LONGEST = max(PROMPTS) + OUTPUT
# Far shorter than the real outputs, so that the forecast admits too many requests and some are preempted.
TOO_SHORT = LengthDistribution((2,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@cache
def checkpoint(folder: Path, kind: str) -> tuple[Path, tuple[Example, ...]]:
    path = tiny_checkpoint(folder / kind, kind, seed=len(kind))
    return path, tuple(Reference(path).prompts(PROMPTS, OUTPUT))


def tight_engine(path: Path, policy: str, stages: int, backend: str) -> Engine:
    settings = load_settings(
        flags={
            "model": {"path": path, "attention": backend, "device": "cpu"},
            "pipeline": {"stages": stages, "host": "in_process"},
            "cache": {"block_size": 4, "blocks": -(-LONGEST // 4) + 3},
            "scheduler": {"policy": policy, "token_budget": 16, "max_running": 6},
        }
    )
    planned = CheckpointStages.plan(settings, describe_model(path))
    pipeline = start_pipeline(settings, planned, lambda _: None)
    scheduler = Scheduler(
        make_policy(settings.scheduler), pipeline.capacity, proportional_cost(stages)
    )
    return Engine(
        pipeline, scheduler, FixedLengths(TOO_SHORT), planned.description.sizes.vocab_size
    )


async def answers(engine: Engine, examples: tuple[Example, ...]) -> list[list[int]]:
    async def answer(number: int, prompt: list[int]) -> list[int]:
        stream = engine.submit(tuple(prompt), OUTPUT, SamplingParams(), frozenset(), str(number))
        return [token async for delta in stream for token in delta.tokens]

    return await asyncio.gather(*(answer(i, prompt) for i, (prompt, _) in enumerate(examples)))


def cases() -> Iterator[tuple[str, str, int, str]]:
    """Yield every family, split and backend for two policies; the other policies run llama only."""
    for kind in KINDS:
        for policy in POLICIES if kind == "llama" else POLICIES[:2]:
            for stages in STAGES:
                for backend in BACKENDS if policy in POLICIES[:2] else BACKENDS[-1:]:
                    yield kind, policy, stages, backend


@pytest.mark.parametrize(("kind", "policy", "stages", "backend"), list(cases()))
async def test_greedy_output_equals_transformers(
    folder: Path, kind: str, policy: str, stages: int, backend: str
) -> None:
    path, examples = checkpoint(folder, kind)
    engine = tight_engine(path, policy, stages, backend)
    try:
        assert await answers(engine, examples) == [output for _, output in examples]
        assert engine.snapshot().preemptions > 0
        assert engine.snapshot().kv_blocks_used == 0
    finally:
        engine.close()


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ],
    ids=["linear", "yarn"],
)
async def test_output_beyond_the_original_length_equals_transformers(
    tmp_path: Path, scaling: dict[str, object]
) -> None:
    path = tiny_checkpoint(tmp_path, rope_parameters=scaling, max_position_embeddings=16)
    assert describe_model(path).max_context == 4 * 16 > LONGEST
    examples = tuple(Reference(path).prompts(PROMPTS, OUTPUT))
    engine = tight_engine(path, "temporal", 2, "sdpa")
    try:
        assert await answers(engine, examples) == [output for _, output in examples]
    finally:
        engine.close()
