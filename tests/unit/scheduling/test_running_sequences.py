"""What a slot keeps of a sequence."""

from __future__ import annotations

import numpy as np

from tdpipe.scheduling.running_sequences import RunningSequences
from tests.support.prompts import prompt


def test_a_slot_and_its_blocks_come_back_from_a_sequence_that_has_lost_its_kv() -> None:
    running = RunningSequences(slots=2, max_blocks=4)
    sequence = prompt(8)
    slot = running.add(sequence)
    running.append_blocks(slot, np.array([5], dtype=np.int32))
    running.append_blocks(slot, np.array([3, 6], dtype=np.int32))
    assert running.occupied.tolist() == [slot]
    assert running.remove(slot).tolist() == [5, 3, 6]
    assert sequence.slot == -1
    assert running.sequences == [None, None]
    assert running.occupied.tolist() == []
    assert sorted(running.free) == [0, 1]


def test_a_slot_keeps_nothing_of_the_sequence_before() -> None:
    running = RunningSequences(slots=1, max_blocks=4)
    slot = running.add(prompt(8))
    running.append_blocks(slot, np.array([5], dtype=np.int32))
    running.scheduled[slot] = running.pending[slot] = 8
    running.last_step[slot] = 8
    running.decoding[slot] = True
    running.remove(slot)
    assert running.add(prompt(6, number=1, output=4)) == slot
    progress = (running.scheduled, running.pending, running.block_count, running.decoding)
    assert [each[slot] for each in progress] == [0, 0, 0, False]
    assert running.last_step[slot] == -1
    assert (running.length[slot], running.prompt[slot], running.limit[slot]) == (6, 6, 10)
