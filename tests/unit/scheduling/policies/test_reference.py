"""The published rules: equal micro-batches, and a switch that compares intensities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tdpipe.core.step import Phase
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.scheduling.policies.reference import ReferencePolicy, worth_switching
from tests.support.prompts import prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.sequence import Sequence


@dataclass
class Crowd:
    """What the policy sees: sequences that decode, and prompts of 512 tokens that wait."""

    decoding: int
    prompts: int = 0
    ready_count: int = 0
    in_flight: int = 0
    stages: int = 4
    free_slots: int = 64
    free_blocks: int = 50_000
    capacity: int = 100_000
    block_size: int = 16
    cost: CostModel = field(
        default_factory=lambda: CostModel(
            (StageCost(np.array([1, 256], dtype=np.int32), np.array([0.1, 0.1])),) * 4
        )
    )
    """A stage takes 0.1 s up to 256 tokens and twice as long for a prompt."""

    @property
    def waiting_count(self) -> int:
        return self.prompts

    @property
    def ready(self) -> IntArray:
        return np.arange(self.ready_count, dtype=np.int32)

    def by_arrival(self, slots: IntArray) -> IntArray:
        return slots[::-1]

    def partial_prefill(self) -> None:
        return None

    def waiting(self) -> Iterator[Sequence]:
        return (prompt(512, number=number) for number in range(self.prompts))

    def running_lengths(self) -> tuple[IntArray, FloatArray]:
        return np.full(self.decoding, 40, dtype=np.int32), np.full(self.decoding, 20.0)


def decode_rows(decoding: int, *ready: int) -> list[list[int]]:
    """Return the slots of consecutive decode steps, given how many are ready at each."""
    policy = ReferencePolicy()
    rows = []
    for count in ready:
        view: Any = Crowd(decoding, ready_count=count)
        plan = policy.plan(view)
        assert plan is not None
        assert plan.phase is Phase.DECODE
        rows.append(plan.decode.tolist())
    return rows


def test_each_stage_gets_an_equal_part_of_the_running_sequences_by_arrival() -> None:
    assert decode_rows(10, 10, 9, 8) == [[9, 8, 7], [8, 7, 6], [7, 6]]


def test_a_few_that_would_be_left_over_join_the_micro_batch() -> None:
    assert [len(rows) for rows in decode_rows(10, 7, 8)] == [7, 3]


@pytest.mark.parametrize(("prompts", "switches"), [(0, False), (2, False), (3, True)])
def test_a_prefill_phase_has_to_be_long_enough_for_its_bubble(
    prompts: int, *, switches: bool
) -> None:
    # Decode is 180 / 256 as intense as a full step. Prefill is (phase - bubble) / phase as intense, where a phase of n
    # prompts takes 0.2 n + 0.6 seconds and its bubble 0.3.
    view: Any = Crowd(decoding=720, prompts=prompts)
    assert worth_switching(view) is switches


def test_a_new_pipeline_begins_with_prefill() -> None:
    policy = ReferencePolicy()
    busy: Any = Crowd(decoding=10, ready_count=10)
    plan = policy.plan(busy)
    assert plan is not None
    assert plan.phase is Phase.DECODE
    policy.reset()
    refilled: Any = Crowd(decoding=1_000, prompts=1)
    plan = policy.plan(refilled)
    assert plan is not None
    assert plan.phase is Phase.PREFILL
