"""The partition of a model's layers among stages.

A pipeline is as fast as its slowest stage. Decode reads every weight of a stage once per step, so the number of weights
stands for time: a layer costs its matrices, the head its vocabulary, and the embedding, of which a step reads a few
rows, nothing.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.core.model_sizes import ModelSizes


def balance_layers(sizes: ModelSizes, stages: int) -> tuple[int, ...]:
    """Return the number of layers of each stage, for which the slowest stage is as fast as possible.

    Among these partitions it is one with the least sum of squared costs, so the other stages are even too.

    Raises:
        SettingsError: there are more stages than layers.
    """
    check_stages(sizes.layers, stages)
    costs = [sizes.layer_weights] * sizes.layers
    costs[-1] += sizes.head_weights
    return balance_costs(costs, stages)


def balance_costs(costs: Sequence[int], stages: int) -> tuple[int, ...]:
    """Divide `costs` into non-empty runs with the least maximum cost and, among these, the least sum of squares.

    Both are found exactly by dynamic programming in stages * len(costs)² steps.

    Args:
        costs: cost of each layer, in any unit; at least `stages` of them.
        stages: number of runs.

    Returns:
        The number of layers in each run.
    """
    ends = [0, *accumulate(costs)]
    layers = len(costs)
    min_max_cost: list[float] = [float(end) for end in ends]
    for _ in range(1, stages):
        min_max_cost = [float("inf")] + [
            min(max(min_max_cost[cut], ends[end] - ends[cut]) for cut in range(end))
            for end in range(1, layers + 1)
        ]
    bound = min_max_cost[layers]

    squares = [0.0] + [float("inf")] * layers
    cuts: list[list[int]] = []
    for _ in range(stages):
        best = [float("inf")] * (layers + 1)
        cut_of = [0] * (layers + 1)
        for end in range(1, layers + 1):
            for cut in range(end):
                cost = ends[end] - ends[cut]
                if cost <= bound and squares[cut] + cost * cost < best[end]:
                    best[end], cut_of[end] = squares[cut] + cost * cost, cut
        squares = best
        cuts.append(cut_of)
    partition = []
    end = layers
    for cut_of in reversed(cuts):
        partition.append(end - cut_of[end])
        end = cut_of[end]
    return tuple(reversed(partition))


def check_partition(partition: Sequence[int], sizes: ModelSizes, stages: int) -> tuple[int, ...]:
    """Return `partition` if it divides the model's layers into `stages` non-empty runs.

    Raises:
        SettingsError: the partition does not.
    """
    check_stages(sizes.layers, stages)
    if len(partition) != stages:
        problem = f"it has {len(partition)} numbers for {stages} stages"
    elif min(partition) < 1:
        problem = "a stage has no layer"
    elif sum(partition) != sizes.layers:
        problem = f"it sums to {sum(partition)}, but the model has {sizes.layers} layers"
    else:
        return tuple(partition)
    balanced = ",".join(str(layers) for layers in balance_layers(sizes, stages))
    raise SettingsError(
        "pipeline.partition", problem, f"leave it out, or use one such as {balanced}"
    )


def check_stages(layers: int, stages: int) -> None:
    """Refuse a number of stages that cannot share the layers of a model.

    Raises:
        SettingsError: there are more stages than layers.
    """
    if not 1 <= stages <= layers:
        raise SettingsError(
            "pipeline.stages",
            f"{stages} stages cannot share {layers} layers",
            f"use 1 to {layers}",
        )
