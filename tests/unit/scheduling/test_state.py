"""What the scheduler counts."""

from __future__ import annotations

from tdpipe.core.step import Phase
from tdpipe.scheduling.block_pool import BlockPool
from tdpipe.scheduling.running_sequences import RunningSequences
from tdpipe.scheduling.state import SchedulerState
from tests.support.prompts import prompt


def make_state() -> SchedulerState:
    return SchedulerState(BlockPool(8, 4), RunningSequences(slots=2, max_blocks=8))


def test_only_changes_between_prefill_and_decode_count_as_switches() -> None:
    state = make_state()
    counts = []
    for phase in (
        Phase.PREFILL,
        Phase.PREFILL,
        Phase.DECODE,
        Phase.MIXED,
        Phase.DECODE,
        Phase.MIXED,
        Phase.PREFILL,
        Phase.DECODE,
    ):
        state.enter_phase(phase)
        counts.append(state.phase_switches)
    assert counts == [0, 0, 1, 1, 1, 1, 2, 3]


def test_a_preempted_sequence_is_counted_and_gives_back_what_it_held() -> None:
    state = make_state()
    for number in range(2):
        slot = state.slots.add(prompt(4, number=number))
        state.slots.append_blocks(slot, state.pool.allocate(1))
        state.slots.pending[slot] = number
        state.preempt(slot)
    assert state.preemptions == 2
    assert state.pool.used == 0
    assert [each.number for each in state.waiting] == [0, 1]
    assert state.late_tokens == {1: 1}  # a token of the first is not in flight


def test_every_request_that_ends_is_counted() -> None:
    state = make_state()
    for number in range(2):
        sequence = prompt(4, number=number)
        state.sequences[sequence.request.id] = sequence
        state.waiting.append(sequence)
        state.end(sequence)
    assert state.finished == 2
    assert not state.sequences
    assert not len(state.waiting)
