"""Which slots and blocks the rows of a plan get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.step import Phase, Step
from tdpipe.scheduling.block_pool import BlockPool
from tdpipe.scheduling.policy import NO_ROWS, Plan
from tdpipe.scheduling.running_sequences import RunningSequences
from tdpipe.scheduling.state import SchedulerState
from tdpipe.scheduling.step_issuer import StepIssuer
from tests.support.prompts import prompt

if TYPE_CHECKING:
    from tdpipe.scheduling.sequence import Sequence


class OneSlot:
    """An issuer for a pipeline that holds one sequence, and what it has to do with it."""

    def __init__(self, blocks: int = 8) -> None:
        self.state = SchedulerState(BlockPool(blocks, 4), RunningSequences(slots=1, max_blocks=8))
        self._issuer = StepIssuer(self.state)

    def queue(self, tokens: int) -> Sequence:
        sequence = prompt(tokens, number=self.state.added)
        self.state.added += 1
        self.state.sequences[sequence.request.id] = sequence
        self.state.waiting.append(sequence)
        return sequence

    def issue(self, *rows: tuple[Sequence, int]) -> Step | None:
        return self._issuer.issue(Plan(Phase.PREFILL, NO_ROWS, rows))

    def decode(self) -> Step:
        step = self._issuer.issue(Plan(Phase.DECODE, np.zeros(1, dtype=np.int32)))
        assert step is not None
        return step

    def prefill(self, *rows: tuple[Sequence, int]) -> Step:
        step = self.issue(*rows)
        assert step is not None
        return step


def test_a_sequence_gets_all_its_blocks_in_a_slot_that_another_has_left() -> None:
    pipeline = OneSlot()
    first, second = pipeline.queue(8), pipeline.queue(12)
    assert len(pipeline.prefill((first, 8)).blocks) == 2
    pipeline.state.end(first)
    step = pipeline.prefill((second, 12))
    assert len(step.blocks) == 3
    assert step.block_slots.tolist() == [0, 0, 0]


def test_a_chunk_gets_the_blocks_that_those_before_it_have_not_taken() -> None:
    pipeline = OneSlot()
    sequence = pipeline.queue(12)
    blocks = [pipeline.prefill((sequence, count)).blocks for count in (3, 6, 3)]
    assert [len(each) for each in blocks] == [1, 2, 0]
    assert len(np.unique(np.concatenate(blocks))) == 3


def test_a_chunk_is_cut_where_the_blocks_end() -> None:
    pipeline = OneSlot(blocks=3)
    sequence = pipeline.queue(20)
    chunks = [pipeline.prefill((sequence, count)).counts.tolist() for count in (5, 15)]
    assert chunks == [[5], [7]]
    assert pipeline.state.pool.available == 0


def test_no_step_is_issued_for_a_chunk_that_no_block_is_left_for() -> None:
    pipeline = OneSlot(blocks=2)
    running, waiting = pipeline.queue(20), pipeline.queue(4)
    pipeline.prefill((running, 8))
    assert pipeline.issue((running, 4)) is None
    pipeline.state.end(running)
    pipeline.state.pool.allocate(2)
    assert pipeline.issue((waiting, 4)) is None
    assert waiting in pipeline.state.waiting


def test_decode_takes_a_block_only_when_the_last_one_is_full() -> None:
    pipeline = OneSlot()
    sequence = pipeline.queue(6)
    steps = [pipeline.prefill((sequence, 6))]
    assert steps[0].starts[0].sampling is sequence.request.sampling
    steps += [pipeline.decode() for _ in range(4)]
    assert [step.id for step in steps] == [0, 1, 2, 3, 4]
    assert [step.phase for step in steps] == [Phase.PREFILL] + [Phase.DECODE] * 4
    assert pipeline.state.phase_switches == 1
    assert [len(step.blocks) for step in steps] == [2, 0, 0, 1, 0]
    assert [step.block_slots.tolist() for step in steps] == [[0, 0], [], [], [0], []]


def test_a_sequence_without_a_free_slot_does_not_hold_up_the_rows_after_it() -> None:
    pipeline = OneSlot()
    running, waiting = pipeline.queue(8), pipeline.queue(8)
    pipeline.prefill((running, 4))
    step = pipeline.prefill((waiting, 4), (running, 4))
    assert (step.starts, step.first.tolist(), step.counts.tolist()) == ((), [4], [4])
    assert waiting in pipeline.state.waiting
