"""The partition of a model's layers into stages.

A pipeline runs at the pace of its slowest stage. Decode reads every weight of a stage once per
step, so weights stand in for time: a layer costs its matrices, the head its vocabulary, and the
embedding, of which a step reads a few rows, nothing.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.core.model_sizes import ModelSizes


def balance_layers(sizes: ModelSizes, stages: int) -> tuple[int, ...]:
    """Choose the number of layers of each stage so that the slowest stage is as quick as possible.

    Among such partitions it takes one with the least sum of squares: stages that are not the
    slowest are even, too.

    Raises:
        SettingsError: there are more stages than layers.
    """
    check_stages(sizes.layers, stages)
    costs = [sizes.layer_weights] * sizes.layers
    costs[-1] += sizes.head_weights
    return balance_costs(costs, stages)


def balance_costs(costs: Sequence[int], stages: int) -> tuple[int, ...]:
    """Divide `costs` into `stages` non-empty runs: least maximum first, then least sum of squares.

    Both are found exactly by dynamic programming in stages * len(costs)² steps.

    Args:
        costs: of each layer, in any unit; at least `stages` of them.
        stages: number of runs.

    Returns:
        Length of each run.
    """
    ends = [0, *accumulate(costs)]
    layers = len(costs)
    least: list[float] = [float(end) for end in ends]
    for _ in range(1, stages):
        least = [float("inf")] + [
            min(max(least[cut], ends[end] - ends[cut]) for cut in range(end))
            for end in range(1, layers + 1)
        ]
    bound = least[layers]

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
        SettingsError: it does not divide them so.
    """
    check_stages(sizes.layers, stages)
    if len(partition) != stages:
        problem = f"{len(partition)} numbers for {stages} stages"
    elif min(partition) < 1:
        problem = "a stage without a layer"
    elif sum(partition) != sizes.layers:
        problem = f"sums to {sum(partition)}, the model has {sizes.layers} layers"
    else:
        return tuple(partition)
    balanced = ",".join(str(layers) for layers in balance_layers(sizes, stages))
    raise SettingsError("pipeline.partition", problem, f"leave it out, or give such as {balanced}")


def check_stages(layers: int, stages: int) -> None:
    """Refuse a number of stages that a model's layers cannot be divided among.

    Raises:
        SettingsError: there are more stages than layers.
    """
    if not 1 <= stages <= layers:
        raise SettingsError(
            "pipeline.stages",
            f"{stages} stages cannot share {layers} layers",
            f"use 1 to {layers}",
        )
