from __future__ import annotations

import math

import pytest

from tdpipe.prediction.tenants import TenantHistory


def test_each_tenant_has_a_record_of_its_own() -> None:
    history = TenantHistory()
    for _ in range(10):
        history.note("ada", 100)
        history.note("bob", 10)
    assert history.recall("ada") == (10, pytest.approx(math.log(100)))
    assert history.recall("bob") == (10, pytest.approx(math.log(10)))
    assert history.recall("eve") == (0, 0.0)
    history.note(None, 1000)
    assert all(math.isnan(each) for each in history.recall(None))


def test_later_outputs_count_for_more_in_the_end() -> None:
    history = TenantHistory()
    for length in [10] * 1000 + [1000] * 200:
        history.note("ada", length)
    assert math.exp(history.recall("ada")[1]) > 700


def test_the_tenants_seen_last_are_remembered() -> None:
    history = TenantHistory()
    history.note("first", 5)
    for number in range(5000):
        history.note("regular", 5)
        history.note(f"tenant {number}", 5)
    assert history.recall("first") == (0, 0.0)
    assert history.recall("regular")[0] == 5000
    assert history.recall("tenant 4999")[0] == 1
