"""What stages compute equals transformers' own `generate`, however steps are cut and ordered."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
import torch

from tests.support.checkpoints import KINDS, Example, Reference, tiny_checkpoint
from tests.support.random_schedule import RandomSchedule
from tests.support.stage_chain import Room, StageChain, make_executors
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
    """A checkpoint, and prompts with transformers' greedy output."""
    path = tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
    return path, Reference(path).prompts(LENGTHS, COUNT)


def generate(
    path: Path, stages: int, attention: str, prompts: list[list[int]], seed: int = 0
) -> tuple[list[list[int]], RandomSchedule]:
    room = Room()
    random = Random(seed)
    chain = StageChain(make_executors(path, stages, attention, room=room), random)
    schedule = RandomSchedule(chain, room, random)
    return schedule.generate(prompts, COUNT), schedule


@pytest.mark.parametrize(("stages", "attention"), SPLITS)
def test_random_steps_over_any_split_give_the_tokens_of_transformers(
    checkpoint: tuple[Path, list[Example]], stages: int, attention: str
) -> None:
    path, examples = checkpoint
    tokens, schedule = generate(path, stages, attention, [prompt for prompt, _ in examples])
    assert tokens == [output for _, output in examples]
    assert schedule.preemptions > 0


@pytest.mark.parametrize("stages", [1, 3])
def test_logits_are_those_of_transformers(
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
