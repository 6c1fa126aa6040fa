from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdpipe.core.errors import SettingsError
from tdpipe.core.model_sizes import ModelSizes
from tdpipe.model.partition import balance_costs, balance_layers, check_partition

MODEL = ModelSizes(
    name="model",
    layers=8,
    hidden_size=64,
    intermediate_size=128,
    heads=8,
    kv_heads=2,
    head_dim=8,
    vocab_size=256,
)


def stage_costs(costs: list[int], partition: tuple[int, ...]) -> list[int]:
    ends = [0, *(sum(partition[: stage + 1]) for stage in range(len(partition)))]
    return [sum(costs[a:b]) for a, b in pairwise(ends)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.data())
@settings(deadline=None)
def test_no_other_partition_has_a_faster_slowest_stage_or_more_even_others(
    costs: list[int], data: st.DataObject
) -> None:
    stages = data.draw(st.integers(1, len(costs)))
    found = balance_costs(costs, stages)
    assert len(found) == stages
    assert min(found) >= 1
    assert sum(found) == len(costs)

    def quality(partition: tuple[int, ...]) -> tuple[int, int]:
        of_stages = stage_costs(costs, partition)
        return max(of_stages), sum(cost * cost for cost in of_stages)

    cuts = combinations(range(1, len(costs)), stages - 1)
    others = (
        tuple(b - a for a, b in zip((0, *cut), (*cut, len(costs)), strict=True)) for cut in cuts
    )
    assert quality(found) == min(quality(other) for other in others)


@given(st.integers(1, 96), st.data())
@settings(deadline=None, max_examples=30)
def test_every_stage_has_a_layer_and_every_layer_a_stage(layers: int, data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, min(layers, 16)))
    found = balance_layers(replace(MODEL, layers=layers), stages)
    assert check_partition(found, replace(MODEL, layers=layers), stages) == found


def test_a_large_head_takes_layers_from_the_last_stage() -> None:
    assert balance_layers(MODEL, 2) == (4, 4)
    assert balance_layers(replace(MODEL, vocab_size=2048), 2) == (6, 2)


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"pipeline\.stages: 9 stages .* use 1 to 8"):
        balance_layers(MODEL, 9)


@pytest.mark.parametrize(
    ("partition", "problem"),
    [
        ((4, 4, 0), "it has 3 numbers for 2 stages"),
        ((8, 0), "a stage has no layer"),
        ((4, 5), "it sums to 9, but the model has 8 layers"),
    ],
)
def test_a_partition_that_does_not_fit_is_refused_with_one_that_does(
    partition: tuple[int, ...], problem: str
) -> None:
    with pytest.raises(SettingsError, match=rf"pipeline\.partition: {problem}; .*4,4"):
        check_partition(partition, MODEL, 2)
