"""Stages compute the same as `generate` of transformers, however steps are chunked and ordered."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.core.sampling import SamplingParams
from tests.support.checkpoints import KINDS, Example, Reference, tiny_checkpoint
from tests.support.random_schedule import RandomSchedule
from tests.support.stage_chain import CAPACITY, StageChain, make_executors
from tests.support.step_driver import row_step, start_of

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 16
LENGTHS = [3, 9, 26, 41, 17]
SPLITS = [(1, "sdpa"), (1, "cpu"), (2, "cpu"), (3, "sdpa"), (4, "cpu")]


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Example]]:
    """Path of a checkpoint, and prompts with the greedy output of transformers."""
    path = tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
    return path, Reference(path).prompts(LENGTHS, COUNT)


def generate(
    path: Path,
    stages: int,
    attention: str,
    prompts: list[list[int]],
    seed: int = 0,
    sampling: list[SamplingParams] | None = None,
) -> tuple[list[list[int]], RandomSchedule]:
    random = Random(seed)
    chain = StageChain(make_executors(path, stages, attention), random)
    schedule = RandomSchedule(chain, CAPACITY, random)
    return schedule.generate(prompts, COUNT, sampling), schedule


@pytest.mark.parametrize(("stages", "attention"), SPLITS)
def test_random_steps_generate_the_tokens_of_transformers_with_any_split(
    checkpoint: tuple[Path, list[Example]], stages: int, attention: str
) -> None:
    path, examples = checkpoint
    tokens, schedule = generate(path, stages, attention, [prompt for prompt, _ in examples])
    assert tokens == [output for _, output in examples]
    assert schedule.preemptions > 0


@pytest.mark.parametrize("stages", [1, 3])
def test_logits_equal_those_of_transformers(
    checkpoint: tuple[Path, list[Example]], stages: int
) -> None:
    path, examples = checkpoint
    prompt = examples[3][0]
    executors = make_executors(path, stages)
    step = row_step(
        0, [(0, 0, len(prompt), True)], (start_of(0, 0, prompt),), [(0, b) for b in range(20)]
    )
    hidden = None
    for executor in executors:
        executor.apply(step)
        hidden = executor.forward(step, hidden)
    assert hidden is not None
    logits = executors[-1]._model.head(hidden)
    torch.testing.assert_close(logits, Reference(path).logits(prompt), rtol=1e-4, atol=1e-4)


SAMPLED = [
    SamplingParams(temperature=0.8, top_p=0.9, seed=1, logprobs=2),
    SamplingParams(temperature=1.0, top_k=20, seed=2, presence_penalty=0.5),
    SamplingParams(repetition_penalty=1.3, frequency_penalty=0.2),
    SamplingParams(temperature=1.2, min_p=0.02, seed=3),
    SamplingParams(temperature=0.9, seed=4, logit_bias=((7, 1.5),)),
]


def test_sampled_tokens_do_not_depend_on_split_order_or_preemption(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path, "qwen3")
    prompts = [[3 + index * 7 % 250 for index in range(length)] for length in LENGTHS]
    runs = [
        generate(path, stages, attention, prompts, seed, SAMPLED)[0]
        for seed, (stages, attention) in enumerate(SPLITS)
    ]
    assert all(run == runs[0] for run in runs)
    assert len({tuple(tokens) for tokens in runs[0]}) == len(prompts)
