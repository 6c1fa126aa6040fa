"""What stages compute equals transformers' own `generate`, however steps are cut and ordered."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
import torch

from tests.support.checkpoints import KINDS, Example, Reference, tiny_checkpoint
from tests.support.random_schedule import RandomSchedule
from tests.support.stage_chain import Room, StageChain, make_executors

if TYPE_CHECKING:
    from pathlib import Path


COUNT = 16
LENGTHS = [3, 9, 26, 41, 17]
SPLITS = [(1, "sdpa"), (1, "cpu"), (2, "cpu"), (3, "sdpa"), (4, "cpu")]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost these tiny models many times their work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
