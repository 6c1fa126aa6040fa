"""From a policy's rows to a step: slots, blocks, and who must give them up.

Blocks and slots are free for reuse the moment their sequence ends or is preempted, even with steps in flight, because
every stage executes steps in the order of issue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.step import SequenceStart, Step
from tdpipe.scheduling.state import Flight, SchedulerState

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.policy import Plan
    from tdpipe.scheduling.sequence import Sequence


class StepIssuer:
    """Numbers steps from `first_step` and books them as in flight."""

    def __init__(self, state: SchedulerState, first_step: int = 0) -> None:
        self._state = state
        self._next_step = first_step
        self._next_turn = 0

    def issue(self, plan: Plan) -> Step | None:
        """The step of the plan's rows that there are blocks for, or None if there is none such.

        Decode rows take the blocks of the latest arrivals if need be; prefill rows take what is left. Where decode rows
        took blocks, no prefill row runs: it was planned for a sequence that may have lost its KV, and for blocks that
        are gone.
        """
        state, slots = self._state, self._state.slots
        preempted = state.preemptions
        decode, new_slots, new_blocks = self._decode_rows(plan.decode)
        starts: list[SequenceStart] = []
        rows: list[tuple[int, int]] = []
        for sequence, count in plan.prefill if state.preemptions == preempted else ():
            begun = sequence.slot >= 0
            if not begun and (sequence not in state.waiting or not slots.free):
                continue
            first = int(slots.scheduled[sequence.slot]) if begun else 0
            held = int(slots.held[sequence.slot]) if begun else 0
            count = min(count, (held + state.pool.available) * state.pool.block_size - first)
            if count <= 0:
                break
            if not begun:
                starts.append(self._start(sequence))
            blocks = state.pool.allocate(state.pool.blocks_for(first + count) - held)
            slots.append_blocks(sequence.slot, blocks)
            new_slots.append(np.full(len(blocks), sequence.slot, dtype=np.int32))
            new_blocks.append(blocks)
            rows.append((sequence.slot, count))
        if not rows and not len(decode):
            return None
        row_slots, counts = decode, np.ones(len(decode), dtype=np.int32)
        if rows:
            prefill = np.array(rows, dtype=np.int32)
            row_slots = np.concatenate([decode, prefill[:, 0]])
            counts = np.concatenate([counts, prefill[:, 1]])
        first_positions = slots.scheduled[row_slots]
        reached = first_positions + counts
        slots.scheduled[row_slots] = reached
        sample = reached == slots.length[row_slots]
        sampled = row_slots[sample]
        slots.decoding[sampled] = True
        slots.length[sampled] += 1
        slots.pending[sampled] += 1
        slots.last_step[row_slots] = self._next_step
        slots.turn[row_slots] = np.arange(self._next_turn, self._next_turn + len(row_slots))
        self._next_turn += len(row_slots)
        step = Step(
            self._next_step,
            plan.phase,
            tuple(starts),
            row_slots,
            first_positions,
            counts,
            sample,
            _joined(new_slots),
            _joined(new_blocks),
        )
        state.enter(step.phase)
        state.in_flight[step.id] = Flight(sampled, slots.number[sampled])
        self._next_step += 1
        return step

    def _decode_rows(self, decode: IntArray) -> tuple[IntArray, list[IntArray], list[IntArray]]:
        """The rows that got their block, preempting the latest arrivals where there is none."""
        slots, pool = self._state.slots, self._state.pool
        while True:
            full = decode[slots.scheduled[decode] >= slots.held[decode] * pool.block_size]
            if len(full) <= pool.available:
                break
            occupied = slots.occupied
            victim = int(occupied[np.argmax(slots.number[occupied])])
            self._state.preempt(victim)
            decode = decode[decode != victim]
        if not len(full):
            return decode, [], []
        blocks = pool.allocate(len(full))
        slots.table[full, slots.held[full]] = blocks
        slots.held[full] += 1
        return decode, [full], [blocks]

    def _start(self, sequence: Sequence) -> SequenceStart:
        self._state.waiting.remove(sequence)
        slot = self._state.slots.take(sequence)
        request = sequence.request
        return SequenceStart(
            slot,
            sequence.number,
            np.array(request.prompt + tuple(sequence.generated), dtype=np.int32),
            len(request.prompt),
            request.sampling,
        )


def _joined(parts: list[IntArray]) -> IntArray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
