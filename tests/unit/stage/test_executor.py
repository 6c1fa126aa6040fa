from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tdpipe.core.errors import PipelineError
from tdpipe.core.step import TokenFeedback
from tests.support.checkpoints import tiny_checkpoint
from tests.support.stage_chain import make_executors
from tests.support.step_driver import row_step, start_of

if TYPE_CHECKING:
    from pathlib import Path

    from tdpipe.core.step import Step
    from tdpipe.stage.executor import StageExecutor

PROMPT = [5, 6, 7]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("llama"))


def prefill(number: int = 0, sequence: int = 4, *, sample: bool = True) -> Step:
    start = start_of(1, sequence, PROMPT)
    return row_step(number, [(1, 0, 3, sample)], (start,), [(1, 2)])


def feedback(sequence: int, position: int, token: int = 9) -> TokenFeedback:
    slots, sequences, positions, tokens = (
        np.asarray([value], np.int32) for value in (1, sequence, position, token)
    )
    return TokenFeedback(0, slots, sequences, positions, tokens)


def run(executors: list[StageExecutor], step: Step) -> tuple[list[int], TokenFeedback]:
    hidden = None
    for executor in executors:
        executor.apply(step)
        hidden = executor.forward(step, hidden)
    assert hidden is not None
    output, found = executors[-1].sample(step, hidden)
    return output.tokens.tolist(), found


def test_the_first_stage_lacks_a_token_until_it_has_come_back(path: Path) -> None:
    stages = make_executors(path, 2)
    _, sampled = run(stages, prefill())
    ahead = row_step(1, [(1, 3, 1, True)], blocks=[])
    assert stages[0].lacks_tokens(ahead)
    with pytest.raises(PipelineError, match="step 1 computes tokens that have not been sampled"):
        stages[0].forward(ahead, None)
    stages[0].store_tokens(sampled)
    assert not stages[0].lacks_tokens(ahead)


def test_late_tokens_of_a_slots_earlier_sequence_are_ignored(path: Path) -> None:
    first, _ = make_executors(path, 2)
    first.apply(prefill(sequence=4))
    first.apply(prefill(number=1, sequence=5))
    ahead = row_step(2, [(1, 3, 1, True)])
    first.store_tokens(feedback(sequence=4, position=3))
    assert first.lacks_tokens(ahead)
    first.store_tokens(feedback(sequence=5, position=3))
    assert not first.lacks_tokens(ahead)


def test_a_token_that_comes_twice_is_stored_once(path: Path) -> None:
    (only,) = make_executors(path, 1)
    _, sampled = run([only], prefill())
    only.store_tokens(sampled)
    assert only.lacks_tokens(row_step(1, [(1, 4, 1, True)]))
    assert not only.lacks_tokens(row_step(1, [(1, 3, 1, True)]))


def test_a_sampled_token_takes_the_position_after_its_row(path: Path) -> None:
    tokens, sampled = run(make_executors(path, 2), prefill(sequence=4))
    assert sampled.positions.tolist() == [3]
    assert sampled.sequences.tolist() == [4]
    assert sampled.slots.tolist() == [1]
    assert sampled.tokens.tolist() == tokens


def test_a_step_that_samples_nothing_gives_no_tokens(path: Path) -> None:
    tokens, sampled = run(make_executors(path, 2), prefill(sample=False))
    assert tokens == []
    assert len(sampled.slots) == 0


def test_a_step_without_blocks_is_refused_by_its_number(path: Path) -> None:
    (only,) = make_executors(path, 1)
    step = row_step(7, [(1, 0, 3, True)], (start_of(1, 4, PROMPT),))
    only.apply(step)
    with pytest.raises(PipelineError, match="step 7 has a row without a block"):
        only.forward(step, None)


def test_a_gpu_waits_for_its_own_stream_and_not_for_activations_that_are_still_being_sent(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        def synchronize(self) -> None:
            waited.append(True)

    class OnGpu:
        device = torch.device("cuda", 0)

    def wait_for_every_stream(_: torch.device) -> None:
        pytest.fail("a pending send would count as busy")

    waited: list[bool] = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream())
    monkeypatch.setattr(torch.cuda, "synchronize", wait_for_every_stream)
    (only,) = make_executors(path, 1)
    only.synchronise()
    assert waited == []
    only._model = OnGpu()  # type: ignore[assignment]
    only.synchronise()
    assert waited == [True]


def test_waiting_for_activations_is_not_computing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, last = make_executors(path, 2)
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(last, "_wait", lambda: now.__setitem__(0, now[0] + 5.0))
    last.apply(prefill())
    last.forward(prefill(), torch.zeros(3, 64))
    assert now == [5.0]
    assert last.synchronise() == 5.0
