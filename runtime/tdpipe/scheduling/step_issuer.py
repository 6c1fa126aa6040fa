"""Turns a policy's rows into a step: gives them slots and blocks, and preempts sequences where blocks run out.

Blocks and slots are free for reuse the moment their sequence ends or is preempted, even with steps in flight, because
every stage executes steps in the order of issue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.step import SequenceStart, Step
from tdpipe.scheduling.state import InFlightStep, SchedulerState

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.policy import Plan
    from tdpipe.scheduling.sequence import Sequence


class StepIssuer:
    """Issues steps, numbered from `first_step`, and records them as in flight."""

    def __init__(self, state: SchedulerState, first_step: int = 0) -> None:
        self._state = state
        self._next_step = first_step
        self._next_turn = 0

    def issue(self, plan: Plan) -> Step | None:
        """Return the step of those rows of the plan that there are blocks for, or None if there are none.

        Decode rows preempt the latest arrivals if blocks are short; prefill rows take the blocks that are left. After a
        preemption no prefill row runs, because it was planned for a sequence that may have lost its KV and for blocks
        that are gone.
        """
        state, slots = self._state, self._state.slots
        preempted = state.preemptions
        decode, new_slots, new_blocks = self._decode_rows(plan.decode)
        starts: list[SequenceStart] = []
        rows: list[tuple[int, int]] = []
        for sequence, count in plan.prefill if state.preemptions == preempted else ():
            running = sequence.slot >= 0
            if not running and (sequence not in state.waiting or not slots.free):
                continue
            first = int(slots.scheduled[sequence.slot]) if running else 0
            held = int(slots.block_count[sequence.slot]) if running else 0
            count = min(count, (held + state.pool.available) * state.pool.block_size - first)
            if count <= 0:
                break
            if not running:
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
            _concatenate(new_slots),
            _concatenate(new_blocks),
        )
        state.enter_phase(step.phase)
        state.in_flight[step.id] = InFlightStep(sampled, slots.number[sampled])
        self._next_step += 1
        return step

    def _decode_rows(self, decode: IntArray) -> tuple[IntArray, list[IntArray], list[IntArray]]:
        """Return the rows that got a block, and the slots and numbers of new blocks; preempts the latest arrivals."""
        slots, pool = self._state.slots, self._state.pool
        while True:
            full = decode[slots.scheduled[decode] >= slots.block_count[decode] * pool.block_size]
            if len(full) <= pool.available:
                break
            occupied = slots.occupied
            victim = int(occupied[np.argmax(slots.number[occupied])])
            self._state.preempt(victim)
            decode = decode[decode != victim]
        if not len(full):
            return decode, [], []
        blocks = pool.allocate(len(full))
        slots.block_table[full, slots.block_count[full]] = blocks
        slots.block_count[full] += 1
        return decode, [full], [blocks]

    def _start(self, sequence: Sequence) -> SequenceStart:
        self._state.waiting.remove(sequence)
        slot = self._state.slots.add(sequence)
        request = sequence.request
        return SequenceStart(
            slot,
            sequence.number,
            np.array(request.prompt + tuple(sequence.generated), dtype=np.int32),
            len(request.prompt),
            request.sampling,
        )


def _concatenate(parts: list[IntArray]) -> IntArray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
