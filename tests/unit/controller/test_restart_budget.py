from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tdpipe.controller.restart_budget import RestartBudget

HOUR = 3600.0


def test_restarts_without_a_served_token_between_them_are_limited() -> None:
    budget = RestartBudget(2, per_hour=100)
    assert [budget.spend(0.0) is None for _ in range(3)] == [True, True, False]
    budget.served()
    assert budget.spend(0.0) is None


def test_the_reason_names_the_setting() -> None:
    assert "recovery.max_restarts)" in (RestartBudget(0, per_hour=1).spend(0.0) or "")
    budget = RestartBudget(5, per_hour=1)
    budget.spend(0.0)
    assert "recovery.max_restarts_per_hour" in (budget.spend(1.0) or "")


@given(
    gaps=st.lists(st.floats(0, 2000), max_size=60),
    per_hour=st.integers(1, 6),
    in_a_row=st.integers(1, 4),
    served=st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_no_hour_and_no_row_has_more_restarts_than_allowed(
    gaps: list[float], per_hour: int, in_a_row: int, served: list[bool]
) -> None:
    budget = RestartBudget(in_a_row, per_hour)
    now, row = 0.0, 0
    granted: list[float] = []
    for gap, serves in zip(gaps, served, strict=False):
        now += gap
        recent = [each for each in granted if each > now - HOUR]
        allowed = budget.spend(now) is None
        assert allowed == (len(recent) < per_hour and row < in_a_row)
        if allowed:
            granted.append(now)
            row += 1
        if serves:
            budget.served()
            row = 0
