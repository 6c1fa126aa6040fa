from __future__ import annotations

import pytest

from tdpipe.measurement.message_latencies import latencies_of

MESSAGE, HOP, TOKEN = 2e-4, 1e-4, 1e-6


def single(stages: int, *sizes: int) -> dict[int, float]:
    return {size: 2 * MESSAGE + (stages - 1) * (HOP + TOKEN * size) for size in sizes}


@pytest.mark.parametrize("stages", [2, 3, 8])
def test_messages_of_the_controller_and_between_stages_are_distinguished(stages: int) -> None:
    loop = MESSAGE + (stages - 1) * (HOP + TOKEN)
    found = latencies_of(stages, single(stages, 1, 64, 512), [loop, loop, 10 * loop])
    assert (found.step, found.feedback) == pytest.approx((MESSAGE, MESSAGE))
    assert found.activation_token == pytest.approx(TOKEN)
    assert found.activations == pytest.approx(HOP, rel=0.02)


def test_one_stage_has_no_messages_between_stages() -> None:
    found = latencies_of(1, {1: 2 * MESSAGE, 64: 2 * MESSAGE}, [])
    assert (found.step, found.feedback) == pytest.approx((MESSAGE, MESSAGE))
    assert (found.activations, found.activation_token) == (0.0, 0.0)


@pytest.mark.parametrize("loop", [[], [-1.0], [0.0], [1.0]])
def test_noise_makes_no_latency_negative(loop: list[float]) -> None:
    found = latencies_of(2, {1: 3e-4, 64: 2e-4}, loop)
    assert min(found.step, found.activations, found.activation_token, found.feedback) >= 0.0
    assert found.step + found.activations + found.feedback == pytest.approx(3e-4)
