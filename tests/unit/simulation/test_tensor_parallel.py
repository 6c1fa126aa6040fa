from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.candidate import make_candidate, simulate
from tdpipe.simulation.hardware import parse_hardware
from tdpipe.simulation.known_models import find_model
from tdpipe.simulation.profile_table import TimeTable
from tdpipe.simulation.roofline import kv_capacity_tokens, whole_model_table
from tdpipe.simulation.scenario import make_scenario
from tdpipe.simulation.tensor_parallel import (
    all_reduce_seconds,
    divides_heads,
    tensor_parallel_cost,
    tensor_parallel_kv_tokens,
)

_, L20 = parse_hardware("L20")
MODEL = find_model("llama-2-13b")
MEASURED = TimeTable(np.array([1, 64, 65, 128], dtype=np.int32), np.array([35, 44, 47, 48]) / 1e3)


def test_one_gpu_takes_the_whole_model_s_time() -> None:
    cost = tensor_parallel_cost(L20, 1, 40, 5120, MEASURED, per_context=1e-6, kv_heads=40)
    assert len(cost.stages) == 1
    assert cost.step_time(64, 1000) == pytest.approx(0.045)


def test_two_all_reduces_per_layer_add_to_a_share_of_the_work() -> None:
    cost = tensor_parallel_cost(L20, 4, 40, 5120, MEASURED, per_context=1e-6, kv_heads=40)
    steps, share = 6, 64 * 5120 * 2 / 4
    exchange = 40 * 2 * steps * (L20.peer_latency + share / L20.peer_bandwidth)
    assert cost.step_time(64, 1000) == pytest.approx(0.011 + exchange + 0.00025)


def test_gpus_beyond_the_kv_heads_read_and_hold_copies() -> None:
    slopes = []
    for gpus in (4, 8):
        cost = tensor_parallel_cost(L20, gpus, 40, 5120, MEASURED, per_context=1e-6, kv_heads=4)
        slopes.append(cost.step_time(64, 1000) - cost.step_time(64, 0))
    assert slopes == pytest.approx([0.00025, 0.00025])
    grouped = find_model("qwen2.5-7b")
    assert grouped.kv_heads == 4
    kv_tokens = [tensor_parallel_kv_tokens(L20, grouped, gpus) for gpus in (4, 8)]
    freed = 2 * grouped.parameters / 8 * 4 / grouped.kv_bytes(2)
    assert kv_tokens[1] - kv_tokens[0] == pytest.approx(freed, abs=2)


def test_a_ring_moves_nearly_twice_the_activations() -> None:
    tokens = np.array([10**6], dtype=np.int32)
    seconds = float(all_reduce_seconds(L20, 4, 5120, tokens)[0])
    moved = 10**6 * 5120 * 2 * 2 * 3 / 4
    assert seconds == pytest.approx(moved / L20.peer_bandwidth, rel=1e-3)


def test_shards_may_be_less_efficient_than_the_whole() -> None:
    whole, shards = (
        tensor_parallel_cost(
            L20, 4, 40, 5120, MEASURED, per_context=0.0, kv_heads=40, shard_efficiency=efficiency
        ).step_time(64, 0)
        for efficiency in (1.0, 0.8)
    )
    assert shards - whole == pytest.approx(0.044 / 4 / 0.8 - 0.044 / 4)


@given(st.integers(1, 16), st.integers(1, 4096))
def test_the_roofline_s_table_does_as_well_as_a_measured_one(gpus: int, tokens: int) -> None:
    table = whole_model_table(L20, MODEL)
    cost = tensor_parallel_cost(L20, gpus, 40, 5120, table, per_context=1e-6, kv_heads=40)
    least = float(np.interp(tokens, table.tokens, table.seconds)) / gpus
    assert cost.step_time(tokens, 0) >= least * (1 - 1e-9)


def test_tensor_parallelism_holds_at_least_as_much_kv_as_a_pipeline() -> None:
    for name in ("llama-2-13b", "qwen2.5-32b"):
        sizes = find_model(name)
        assert tensor_parallel_kv_tokens(L20, sizes, 4) >= kv_capacity_tokens(L20, sizes, 4)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match="--hardware"):
        tensor_parallel_kv_tokens(L20, find_model("llama-2-70b"), 2)


def test_gpus_that_share_no_heads_evenly_have_no_tensor_parallelism() -> None:
    grouped = find_model("llama-2-70b")  # 64 heads, 8 KV heads
    assert [gpus for gpus in range(1, 20) if divides_heads(grouped, gpus)] == [1, 2, 4, 8, 16]
    assert not divides_heads(MODEL, 3)
    uneven = make_scenario(L20, MODEL, 3)
    assert uneven.tensor_parallel is None
    with pytest.raises(SettingsError, match=r"^--policy: tp-hybrid: 3 GPUs do not share 40 heads"):
        simulate(make_candidate("tp-hybrid"), uneven, [])
