from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tdpipe.core.errors import PipelineError
from tdpipe.stage.slots import SlotTable, TokenTable
from tests.support.step_driver import row_step, start_of

if TYPE_CHECKING:
    from tdpipe.core.step import Step


def make_table() -> SlotTable:
    return SlotTable(slots=4, max_context=16, blocks=10, block_size=4)


def first_step() -> Step:
    """Return a step that starts a sequence of five tokens in slot 2 and one of two tokens in slot 0."""
    return row_step(
        0,
        [(2, 0, 5, True), (0, 0, 2, True)],
        (start_of(2, 8, [1, 2, 3, 4, 5]), start_of(0, 9, [6, 7])),
        [(2, 7), (0, 3), (2, 1)],
    )


def begin(table: SlotTable) -> None:
    step = first_step()
    table.apply(step)
    table.check_rows(step)
    table.advance(step)


def test_blocks_of_one_slot_keep_the_order_of_the_step() -> None:
    table = make_table()
    begin(table)
    assert table.block_tables[2, :2].tolist() == [7, 1]
    assert table.block_tables[0, :1].tolist() == [3]
    table.apply(row_step(1, [(2, 5, 1, True)], blocks=[(2, 9), (0, 4), (2, 5)]))
    assert table.block_tables[2].tolist() == [7, 1, 9, 5]
    assert table.block_counts.tolist() == [2, 0, 4, 0]


def test_a_start_clears_what_the_slot_held() -> None:
    table = make_table()
    begin(table)
    step = row_step(1, [(2, 0, 1, False)], (start_of(2, 10, [1]),), [(2, 0)])
    table.apply(step)
    assert table.block_counts[2] == 1
    assert table.block_tables[2, 0] == 0
    assert table.sequences.tolist() == [9, -1, 10, -1]
    with pytest.raises(PipelineError, match="never computed"):
        table.check_rows(row_step(2, [(2, 3, 1, False)]))


IMPOSSIBLE_ROWS: list[tuple[list[tuple[int, int, int, bool]], str]] = [
    ([(1, 0, 1, True)], r"without a sequence \(slot 1\)"),
    ([(4, 0, 1, True)], "slots outside 0 to 3"),
    ([(-1, 0, 1, True)], "slots outside 0 to 3"),
    ([(2, 5, 0, True)], "an empty row"),
    ([(2, -1, 1, True)], "before its sequence"),
    ([(0, 2, 1, True), (2, 5, 4, True)], r"without a block \(slot 2\)"),
    ([(2, 6, 1, True)], r"never computed \(slot 2\)"),
    ([(2, 5, 1, True), (2, 5, 1, True)], r"two rows of one slot \(slot 2\)"),
]


@pytest.mark.parametrize(("rows", "problem"), IMPOSSIBLE_ROWS)
def test_rows_that_would_access_the_kv_of_others_are_refused_by_name(
    rows: list[tuple[int, int, int, bool]], problem: str
) -> None:
    table = make_table()
    begin(table)
    with pytest.raises(PipelineError, match=f"step 1 .*({problem})"):
        table.check_rows(row_step(1, rows))


def test_rows_beyond_the_context_are_refused_though_they_have_blocks() -> None:
    table = SlotTable(slots=1, max_context=6, blocks=4, block_size=4)
    step = row_step(0, [(0, 0, 7, True)], (start_of(0, 0, [1, 2, 3]),), [(0, 0), (0, 1)])
    table.apply(step)
    with pytest.raises(PipelineError, match="exceeds the context of 6 tokens"):
        table.check_rows(step)


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ([(2, 10)], "blocks outside the cache of 10"),
        ([(2, -1)], "blocks outside the cache of 10"),
        ([(4, 0)], "gives blocks to slots 4 to 4"),
        ([(2, 0), (2, 2), (2, 4)], "more blocks than the context has"),
    ],
)
def test_impossible_blocks_are_refused(blocks: list[tuple[int, int]], problem: str) -> None:
    table = make_table()
    begin(table)
    with pytest.raises(PipelineError, match=f"step 1 .*{problem}"):
        table.apply(row_step(1, [(2, 5, 1, True)], blocks=blocks))


def test_impossible_starts_are_refused() -> None:
    for start, problem in (
        (start_of(4, 0, [1]), "slot 4"),
        (start_of(0, 0, [1] * 17), "of 17 tokens"),
        (start_of(0, 0, []), "of 0 tokens"),
    ):
        with pytest.raises(PipelineError, match=f"step 0 starts .*{problem}"):
            make_table().apply(row_step(0, [(0, 0, 1, True)], (start,)))


def test_steps_may_come_as_read_only_arrays() -> None:
    step = first_step()
    for array in (step.slots, step.first, step.counts, step.block_slots, step.blocks):
        array.flags.writeable = False
    table = make_table()
    table.apply(step)
    table.check_rows(step)


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.asarray(values, np.int32)


def make_tokens() -> TokenTable:
    tokens = TokenTable(slots=4, max_context=8, vocab_size=10)
    tokens.apply(first_step())
    return tokens


def test_tokens_are_stored_once_and_at_their_positions() -> None:
    tokens = make_tokens()
    for _ in range(2):
        tokens.extend(ints(0, 2), ints(2, 4), ints(9, 9))
    assert tokens.token_counts.tolist() == [3, 0, 5, 0]
    assert tokens.tokens[0, :3].tolist() == [6, 7, 9]
    assert tokens.tokens[2, :5].tolist() == [1, 2, 3, 4, 5]


def test_a_token_sampled_at_the_end_of_the_context_is_stored() -> None:
    tokens = TokenTable(slots=1, max_context=2, vocab_size=10)
    tokens.apply(row_step(0, [(0, 0, 2, True)], (start_of(0, 0, [4, 5]),)))
    tokens.extend(ints(0), ints(2), ints(6))
    assert tokens.tokens.tolist() == [[4, 5, 6]]


def test_a_row_lacks_tokens_until_the_last_of_them_is_stored() -> None:
    tokens = make_tokens()
    ahead = row_step(1, [(2, 4, 1, True), (0, 2, 1, True)])
    assert tokens.lacks_tokens(ahead)
    tokens.extend(ints(0), ints(2), ints(9))
    assert not tokens.lacks_tokens(ahead)


@pytest.mark.parametrize("token", [-1, 10])
def test_tokens_outside_the_vocabulary_are_refused(token: int) -> None:
    step = row_step(3, [(1, 0, 1, True)], (start_of(1, 0, [2, token]),))
    with pytest.raises(PipelineError, match=r"step 3 .*outside the vocabulary \(slot 1\)"):
        make_tokens().apply(step)


def test_a_started_sequence_has_no_computed_tokens() -> None:
    table = make_table()
    step = row_step(0, [(2, 1, 1, True)], (start_of(2, 8, [1, 2]),), [(2, 7)])
    table.apply(step)
    with pytest.raises(PipelineError, match="never computed"):
        table.check_rows(step)


def test_a_row_may_end_at_the_end_of_the_context() -> None:
    table = SlotTable(slots=1, max_context=6, blocks=4, block_size=4)
    step = row_step(0, [(0, 0, 6, True)], (start_of(0, 0, [1, 2, 3]),), [(0, 0), (0, 1)])
    table.apply(step)
    table.check_rows(step)
