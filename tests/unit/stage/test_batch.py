from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdpipe.stage.batch import build_batch, sampled_tokens
from tdpipe.stage.slots import SlotTable, TokenTable
from tests.support.step_driver import row_step, start_of

SLOTS, CONTEXT, SIZE = 5, 24, 4
ROW = st.tuples(st.integers(0, CONTEXT - 1), st.integers(1, 9), st.booleans())


@given(
    st.lists(ROW, min_size=1, max_size=SLOTS),
    st.permutations(range(SLOTS)),
    st.permutations(range(SLOTS * CONTEXT // SIZE)),
)
@settings(deadline=None)
def test_a_batch_has_every_token_of_its_rows(
    shapes: list[tuple[int, int, bool]], slots: list[int], blocks: list[int]
) -> None:
    table = SlotTable(slots=SLOTS, max_context=CONTEXT, blocks=len(blocks), block_size=SIZE)
    tokens = TokenTable(slots=SLOTS, max_context=CONTEXT, vocab_size=1000)
    ids = {slot: [slot * 100 + position for position in range(CONTEXT)] for slot in slots}
    blocks_of = {slot: blocks[slot * 6 : slot * 6 + 6] for slot in slots}
    rows = [
        (slot, first, min(count, CONTEXT - first), sample)
        for slot, (first, count, sample) in zip(slots, shapes, strict=False)
    ]
    step = row_step(
        0,
        rows,
        tuple(start_of(slot, slot, ids[slot]) for slot in slots),
        [(slot, block) for slot in slots for block in blocks_of[slot]],
    )
    table.apply(step)
    tokens.apply(step)
    batch = build_batch(step, table, tokens, torch.device("cpu"))

    expected = [(slot, first + index) for slot, first, count, _ in rows for index in range(count)]
    layout = batch.layout
    assert batch.positions.tolist() == [position for _, position in expected]
    assert batch.token_ids is not None
    assert batch.token_ids.tolist() == [ids[slot][position] for slot, position in expected]
    assert layout.slot_mapping.tolist() == [
        blocks_of[slot][position // SIZE] * SIZE + position % SIZE for slot, position in expected
    ]
    ends = np.cumsum([count for _, _, count, _ in rows]).tolist()
    assert layout.query_start.tolist() == [0, *ends]
    assert layout.context_len.tolist() == [first + count for _, first, count, _ in rows]
    for row, (slot, first, count, _) in enumerate(rows):
        need = -(-(first + count) // SIZE)
        assert layout.block_tables[row, :need].tolist() == blocks_of[slot][:need]
    assert (layout.rows, layout.tokens) == (len(rows), len(expected))
    assert layout.max_query == max(count for _, _, count, _ in rows)
    assert layout.max_context == max(first + count for _, first, count, _ in rows)
    assert sampled_tokens(step).tolist() == [
        end - 1 for end, row in zip(ends, rows, strict=True) if row[3]
    ]
    assert layout.slot_mapping.dtype == torch.int64
    for tensor in (layout.query_start, layout.context_len, layout.block_tables, batch.positions):
        assert tensor.dtype == torch.int32


def test_later_stages_need_no_token_ids() -> None:
    table = SlotTable(slots=1, max_context=4, blocks=1, block_size=4)
    step = row_step(0, [(0, 0, 2, True)], (start_of(0, 0, [1, 2]),), [(0, 0)])
    table.apply(step)
    assert build_batch(step, table, None, torch.device("cpu")).token_ids is None
