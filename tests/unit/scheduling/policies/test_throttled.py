"""How much the throttled policy prefills."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tdpipe.scheduling.policies.throttled import ThrottledPolicy
from tdpipe.scheduling.waiting_queue import Load
from tests.support.prompts import prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.policy import Plan
    from tdpipe.scheduling.sequence import Sequence

BUDGET = 512


@dataclass
class Seen:
    """What the policy sees while a prompt of `tokens` tokens waits."""

    tokens: int
    free_blocks: int = 1_000
    decoding: int = 21
    capacity: int = 1_000
    block_size: int = 16
    free_slots: int = 8
    in_flight: int = 0
    stages: int = 4
    ready: IntArray = field(default_factory=lambda: np.arange(21, dtype=np.int32))

    @property
    def load(self) -> Load:
        return Load(1, float(self.tokens))

    def waiting(self) -> Iterator[Sequence]:
        return iter([prompt(self.tokens)])

    def partial_prefill(self) -> None:
        return None


def planned(view: Any) -> Plan:  # noqa: ANN401 - stands in for a view
    plan = ThrottledPolicy(BUDGET).plan(view)
    assert plan is not None
    return plan


def prefilled(view: Seen) -> int:
    return sum(count for _, count in planned(view).prefill)


@pytest.mark.parametrize(("waiting", "tokens"), [(2_000, 250), (4_800, 512), (100, 32)])
def test_waiting_prompts_are_spread_over_eight_micro_batches(waiting: int, tokens: int) -> None:
    assert prefilled(Seen(waiting)) == tokens


@pytest.mark.parametrize(("free_blocks", "share"), [(525, 0.5), (240, 0.2), (51, 32 / BUDGET)])
def test_prefill_shrinks_with_the_free_kv(free_blocks: int, share: float) -> None:
    assert prefilled(Seen(9_000, free_blocks)) == pytest.approx(share * BUDGET, abs=1)


def test_nothing_is_prefilled_into_a_cache_that_is_nearly_full_unless_nothing_decodes() -> None:
    assert prefilled(Seen(9_000, free_blocks=50)) == 0
    alone = Seen(9_000, free_blocks=50, decoding=0, ready=np.zeros(0, dtype=np.int32))
    assert prefilled(alone) == BUDGET


def test_one_step_beyond_one_per_stage_is_in_flight_at_most() -> None:
    full: Any = Seen(2_000, in_flight=5)
    assert ThrottledPolicy(BUDGET).plan(full) is None
    assert len(planned(Seen(2_000, in_flight=4)).decode)


def test_decode_is_dealt_out_in_equal_parts() -> None:
    assert planned(Seen(2_000)).decode.tolist() == [0, 1, 2, 3, 4, 5]
