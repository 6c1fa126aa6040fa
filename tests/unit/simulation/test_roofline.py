from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.hardware import CATALOGUE, Hardware, parse_hardware
from tdpipe.simulation.known_models import KNOWN, find_model
from tdpipe.simulation.profile_table import TimeTable
from tdpipe.simulation.roofline import (
    FITTED,
    FITTED_ERROR,
    Efficiency,
    Measured,
    fit_efficiency,
    fit_error,
    kv_bandwidth,
    kv_capacity_tokens,
    pipeline_cost,
    whole_model_table,
)

if TYPE_CHECKING:
    from tdpipe.core.model_sizes import ModelSizes

_, L20 = parse_hardware("L20")
SIZES = (1, 2, 16, 17, 64, 65, 128, 129, 256, 257, 384, 385, 512, 1024, 1536, 2048)
# Milliseconds of these sizes, from TD-Pipe's profiler-results (Apache-2.0).
L20_MILLISECONDS = {
    "llama-2-13b": (
        *(35.3, 37.4, 37.8, 44.6, 43.9, 44.1, 47.8, 60.1),
        *(70.0, 95.7, 97.2, 130.4, 131.7, 258.5, 380.5, 508.7),
    ),
    "qwen2.5-32b": (
        *(85.5, 89.3, 90.6, 108.9, 103.9, 115.0, 116.5, 148.8),
        *(155.9, 234.9, 238.0, 312.4, 313.5, 596.7, 906.9, 1207.7),
    ),
}

gpus = st.sampled_from(CATALOGUE)
models = st.sampled_from(KNOWN)
tokens = st.integers(1, 6000)


def measured() -> list[Measured]:
    return [
        Measured(
            L20,
            find_model(name),
            TimeTable(np.array(SIZES, dtype=np.int32), np.array(milliseconds) / 1e3),
        )
        for name, milliseconds in L20_MILLISECONDS.items()
    ]


def time_of(
    hardware: Hardware, sizes: ModelSizes, stages: int, count: int, context: float = 0
) -> float:
    return pipeline_cost(hardware, sizes, stages).step_time(count, context)


def test_estimates_are_close_to_measured_l20_times() -> None:
    error = fit_error(measured())
    assert error.mean == pytest.approx(FITTED_ERROR.mean, abs=0.005)
    assert error.worst <= FITTED_ERROR.worst


def test_a_fit_to_measured_times_is_no_worse_than_the_one_that_is_kept() -> None:
    fitted = fit_efficiency(measured())
    assert fit_error(measured(), fitted).mean < fit_error(measured()).mean + 0.005


@pytest.mark.parametrize("truth", [Efficiency(4e-5, 6.0, 0.8, 0.7, 1.5, 1.3, 1.15), FITTED])
def test_a_fit_recovers_the_efficiency_that_made_the_times(truth: Efficiency) -> None:
    made = []
    for name in ("llama-2-13b", "qwen2.5-32b"):
        # The head computes one row of a prompt, which is what a profile has: without its own work it is lost in noise.
        sizes = dataclasses.replace(find_model(name), vocab_size=1)
        table = whole_model_table(L20, sizes, truth)
        made.append(Measured(L20, sizes, table))
    fitted = fit_efficiency(made)
    assert fit_error(made, fitted).worst < 1e-3
    assert fitted.bandwidth == pytest.approx(truth.bandwidth, rel=0.02)
    assert fitted.flops == pytest.approx(truth.flops, rel=0.02)


def test_time_steps_up_where_another_tile_begins() -> None:
    times = {
        count: time_of(L20, find_model("llama-2-13b"), 4, count)
        for count in (128, 129, 256, 257, 384)
    }
    assert times[129] / times[128] == pytest.approx(1.26, abs=0.15)
    assert times[257] / times[256] == pytest.approx(1.37, abs=0.1)
    assert times[384] / times[257] == pytest.approx(1.01, abs=0.02)


@given(gpus, models, st.integers(1, 8), tokens, tokens)
def test_more_tokens_never_take_less_time(
    hardware: Hardware, sizes: ModelSizes, stages: int, some: int, others: int
) -> None:
    fewer, more = sorted((some, others))
    cost = pipeline_cost(hardware, sizes, stages)
    assert cost.step_time(fewer, 0) <= cost.step_time(more, 0) * (1 + 1e-9)


@given(gpus, models, tokens, st.integers(0, 10**6), st.floats(1, 4), st.floats(1, 4))
def test_a_faster_gpu_is_never_slower(
    hardware: Hardware,
    sizes: ModelSizes,
    count: int,
    context: int,
    bandwidth: float,
    flops: float,
) -> None:
    faster = dataclasses.replace(
        hardware,
        memory_bandwidth=hardware.memory_bandwidth * bandwidth,
        flops=hardware.flops * flops,
    )
    slow = time_of(hardware, sizes, 4, count, context)
    assert time_of(faster, sizes, 4, count, context) <= slow * (1 + 1e-9)


@given(gpus, models, st.integers(1, 8), tokens, st.integers(0, 10**6))
def test_the_stages_together_take_the_whole_model_s_time(
    hardware: Hardware, sizes: ModelSizes, stages: int, count: int, context: int
) -> None:
    def total(number: int) -> float:
        cost = pipeline_cost(hardware, sizes, number)
        return sum(
            float(stage.seconds(np.array([count]), np.array([context]))[0]) for stage in cost.stages
        )

    assert total(stages) == pytest.approx(total(1))


def test_only_the_last_stage_has_the_head() -> None:
    times = [
        float(stage.table_seconds[0])
        for stage in pipeline_cost(L20, find_model("qwen2.5-32b"), 4).stages
    ]
    assert times[0] == times[1] == times[2] < times[3]


def test_layers_are_split_evenly() -> None:
    sizes = find_model("qwen2.5-32b")
    even = pipeline_cost(L20, sizes, 3).stages
    layers = [stage.per_context * kv_bandwidth(L20) / 4096 for stage in even]
    assert sorted(layers) == pytest.approx([21, 21, 22])


@pytest.mark.parametrize("stages", [0, 41])
def test_stages_without_a_layer_are_refused(stages: int) -> None:
    with pytest.raises(SettingsError, match="use 1 to 40"):
        pipeline_cost(L20, find_model("llama-2-13b"), stages)


def test_reading_kv_takes_its_bytes_over_the_bandwidth() -> None:
    sizes = find_model("llama-2-13b")
    reading = time_of(L20, sizes, 4, 64, 10_000) - time_of(L20, sizes, 4, 64)
    assert reading == pytest.approx(10_000 * 819_200 / 4 / kv_bandwidth(L20))


@pytest.mark.parametrize(
    ("name", "kv_tokens"), [("llama-2-13b", 171_000), ("qwen2.5-32b", 366_000)]
)
def test_four_l20_hold_as_much_kv_as_the_reference_counts(name: str, kv_tokens: int) -> None:
    assert kv_capacity_tokens(L20, find_model(name), 4) == pytest.approx(kv_tokens, rel=0.04)


def test_the_fullest_stage_limits_kv() -> None:
    sizes = find_model("qwen2.5-32b")
    even, uneven, full = (
        kv_capacity_tokens(L20, dataclasses.replace(sizes, layers=layers), 4)
        for layers in (64, 65, 68)
    )
    assert even > uneven == full
    assert kv_capacity_tokens(L20, sizes, 4, utilisation=0.8) < even


def test_a_tied_head_is_held_once_where_the_embedding_is() -> None:
    sizes = find_model("llama-3.1-8b")
    tied = dataclasses.replace(sizes, tied=True)
    assert kv_capacity_tokens(L20, tied, 1) > kv_capacity_tokens(L20, sizes, 1)
    assert kv_capacity_tokens(L20, tied, 2) == kv_capacity_tokens(L20, sizes, 2)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match="use more GPUs"):
        kv_capacity_tokens(L20, find_model("llama-2-70b"), 2)
