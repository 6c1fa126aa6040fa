from __future__ import annotations

import math

import pytest

from tdpipe.prediction.tenant_history import TenantHistory


def test_each_tenant_has_its_own_statistics() -> None:
    history = TenantHistory()
    for _ in range(10):
        history.record("ada", 100)
        history.record("bob", 10)
    assert history.statistics("ada") == pytest.approx((10, math.log(100)))
    assert history.statistics("bob") == pytest.approx((10, math.log(10)))
    assert history.statistics("eve") == (0, 0.0)
    history.record(None, 1000)
    assert all(math.isnan(each) for each in history.statistics(None))


def test_later_outputs_have_more_weight() -> None:
    history = TenantHistory()
    for length in [10] * 1000 + [1000] * 200:
        history.record("ada", length)
    assert math.exp(history.statistics("ada")[1]) > 700


def test_the_tenants_active_last_are_kept() -> None:
    history = TenantHistory()
    history.record("first", 5)
    for number in range(5000):
        history.record("regular", 5)
        history.record(f"tenant {number}", 5)
    assert history.statistics("first") == (0, 0.0)
    assert history.statistics("regular")[0] == 5000
    assert history.statistics("tenant 4999")[0] == 1
