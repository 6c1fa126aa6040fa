from __future__ import annotations

import pytest

from tdpipe.scheduling.profiled_cost import profiled_cost
from tests.support.step_driver import row_step
from tests.unit.core.test_profile import make_profile


def test_a_profile_s_table_context_chunks_and_mixing_all_count() -> None:
    cost = profiled_cost(make_profile())
    decode = row_step(0, [(0, 1000, 1, True), (1, 1000, 1, True)])
    prompt = cost.stage_seconds(row_step(0, [(0, 0, 129, True)]))
    assert prompt == pytest.approx((0.5 + (64 + 128) * 1.25e-8, 0.5))
    table = cost.stage_seconds(row_step(0, [(0, 0, 2, True)]))
    assert cost.stage_seconds(decode)[0] == pytest.approx(table[0] + 2000 * 1.25e-8)
    assert cost.stage_seconds(decode)[1] == pytest.approx(table[1])
    # A chunk of two tiles reads its context twice, and its second tile the first.
    chunk = row_step(0, [(0, 1000, 128, True)])
    assert cost.stage_seconds(chunk)[0] == pytest.approx(0.25 + 2064 * 1.25e-8)
    mixed = row_step(0, [(0, 1000, 1, True), (1, 0, 127, True)])
    assert cost.stage_seconds(mixed)[0] == pytest.approx(0.25 + 1.5 * 1064 * 1.25e-8 + 0.001)
