"""Which chunks of prompts there are tokens, blocks and slots for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tdpipe.scheduling.policy import prefill_rows
from tests.support.prompts import prompt

if TYPE_CHECKING:
    from tdpipe.scheduling.sequence import Sequence


@dataclass
class Room:
    """The part of the view that chunks are cut by."""

    free_blocks: int = 100
    free_slots: int = 8
    partial: Sequence | None = None
    prefilled: int = 0
    """Number of tokens of the partial prefill that are done."""
    block_size: int = 4

    def partial_prefill(self) -> Sequence | None:
        return self.partial

    def unscheduled(self, sequence: Sequence) -> int:
        return sequence.length - self.prefilled


def chunks(room: Room, *waiting: int, budget: int = 1_000) -> list[int]:
    """Return the tokens of each chunk; prompts of `waiting` tokens wait."""
    view: Any = room
    sequences = [prompt(tokens, number=number) for number, tokens in enumerate(waiting)]
    return [count for _, count in prefill_rows(view, iter(sequences), budget)]


def test_the_last_chunk_is_cut_where_the_token_budget_ends() -> None:
    assert chunks(Room(), 8, 8, 8, budget=14) == [8, 6]
    assert chunks(Room(), 8, 8, 8, budget=16) == [8, 8]


def test_the_last_chunk_is_cut_where_the_blocks_end() -> None:
    assert chunks(Room(free_blocks=3), 8, 8) == [8, 4]
    assert chunks(Room(free_blocks=2), 8, 8) == [8]
    assert chunks(Room(free_blocks=2), 3, 8) == [3, 4]


def test_a_chunk_may_be_a_single_token() -> None:
    assert chunks(Room(), 1, 8, budget=2) == [1, 1]


def test_no_more_prompts_begin_than_slots_are_free() -> None:
    assert chunks(Room(free_slots=2), 8, 8, 8) == [8, 8]
    assert chunks(Room(free_slots=0), 8) == []


def test_a_partial_prefill_goes_on_first_and_takes_only_the_blocks_that_it_lacks() -> None:
    room = Room(free_blocks=3, partial=prompt(7), prefilled=3)
    assert chunks(room, 12) == [4, 8]


def test_prompts_share_the_tokens_that_the_last_chunk_of_a_partial_prefill_leaves() -> None:
    assert chunks(Room(partial=prompt(8), prefilled=4), 20, budget=10) == [4, 6]
    assert chunks(Room(partial=prompt(8), prefilled=7), 20, budget=10) == [1, 9]


def test_nothing_follows_a_partial_prefill_that_stays_partial() -> None:
    assert chunks(Room(partial=prompt(8), prefilled=4), 8, budget=3) == [3]
    assert chunks(Room(free_blocks=0, partial=prompt(8), prefilled=4), 8) == []


def test_a_partial_prefill_uses_the_rest_of_its_last_block_when_no_other_is_free() -> None:
    assert chunks(Room(free_blocks=0, partial=prompt(8), prefilled=2), 8) == [2]
