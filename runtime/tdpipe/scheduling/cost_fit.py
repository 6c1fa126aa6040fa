"""From steps that were measured to what steps cost.

Noise is the enemy: a price that is none would be multiplied by a long context. So prices come from steps that are alike
in all else, and only where these differ by more than chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.scheduling.cost_model import CostModel, StageCost

if TYPE_CHECKING:
    from tdpipe.core.step import FloatArray, IntArray

_ONE_IN_TWENTY = 1.64
"""Standard deviations above the mean that a normal variable exceeds so often."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One executed step, as the cost model is fitted from."""

    tokens: int
    """Batch tokens."""
    context: int
    """KV tokens that were read (see `kv_reads`)."""
    sampled: int
    """Tokens that were sampled."""
    seconds: tuple[float, ...]
    """[stages] busy time."""


def fit_cost(observations: list[Observation]) -> CostModel:
    """Fit each stage's table, seconds per KV token and seconds per sampled token to measured steps.

    What a KV token costs is taken from steps that are equal but for the KV they read, what a sampled token costs the
    last stage from steps that are equal but for that and for how many are sampled. Each is 0 where the steps do not
    clearly differ: noise would be multiplied by a long context. Steps whose time depends most on it say most about it.
    The table takes the median time of each token count with both taken off, made to ascend.

    Raises:
        ValueError: there is no observation.
    """
    if not observations:
        raise ValueError("no observation to fit from")
    stages = len(observations[0].seconds)
    last = stages - 1
    return CostModel(
        tuple(_fit_stage(observations, each, samples=each == last) for each in range(stages))
    )


def _fit_stage(observations: list[Observation], stage: int, *, samples: bool) -> StageCost:
    tokens = np.array([o.tokens for o in observations], dtype=np.float64)
    context = np.array([o.context for o in observations], dtype=np.float64)
    sampled = np.array([o.sampled for o in observations], dtype=np.float64)
    seconds = np.array([o.seconds[stage] for o in observations])
    per_context = _price(context, seconds, (tokens, sampled))
    base = seconds - per_context * context
    per_sampled = _price(sampled, base, (tokens,)) if samples else 0.0
    base = base - per_sampled * sampled
    points, counts = np.unique(tokens, return_counts=True)
    usual = [max(1e-7, float(np.median(base[tokens == point]))) for point in points]
    table = _ascending(usual, counts.tolist())
    return StageCost(points.astype(np.int32), table, per_context, per_sampled)


def _ascending(values: list[float], weights: list[int]) -> FloatArray:
    """The nearest values that ascend: where one is above the next, both become their mean, and so on."""
    pools: list[tuple[float, int, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, total, count = value, weight, 1
        while pools and pools[-1][0] > mean:
            before, heavy, several = pools.pop()
            mean = (mean * total + before * heavy) / (total + heavy)
            total, count = total + heavy, count + several
        pools.append((mean, total, count))
    return np.repeat([mean for mean, _, _ in pools], [count for _, _, count in pools])


def _deviation(pairs: IntArray) -> float:
    """Standard deviation of the share of [n, 2] pairs of steps whose first one is the slower, if that is chance.

    Mann and Whitney's, for two groups that make so many pairs. Pairs within several token counts are taken for those of
    one comparison: a machine that drifts slows steps of all counts alike, so each tells less than if it were alone.
    """
    first, second = (len(np.unique(side)) for side in pairs.T)
    ratio = math.sqrt(first / second)
    groups = math.sqrt(len(pairs)) * (ratio + 1.0 / ratio)
    return math.sqrt((groups + 1.0) / (12.0 * len(pairs)))


def _price(amount: FloatArray, seconds: FloatArray, alike: tuple[FloatArray, ...]) -> float:
    """Seconds that each unit of `amount` costs, from steps that agree in all of `alike`.

    Each pair of a step with much and one with little of it gives a slope; of those in which it weighs most beside the
    time, the median bears steps that were held up. 0 unless more of these are above it than chance would lift there in
    one of twenty cases (the rank-sum test): a price out of noise would be multiplied by a long context.
    """
    slopes, weights, pairs = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, 2), dtype=np.int32)]
    keys = np.stack(alike, axis=1)
    for key in np.unique(keys, axis=0):
        steps = np.flatnonzero((keys == key).all(axis=1))
        here, times = amount[steps], seconds[steps]
        much = here > here.max() / 2
        reach = here[much][:, None] - here[~much]
        slopes.append(((times[much][:, None] - times[~much]) / reach).ravel())
        weights.append((reach / np.median(times)).ravel())
        grid = np.meshgrid(steps[much], steps[~much], indexing="ij")
        pairs.append(np.stack([each.ravel() for each in grid], axis=1).astype(np.int32))
    weight = np.concatenate(weights)
    if not len(weight):
        return 0.0
    tells = weight >= weight.max() / 2
    telling, sides = np.concatenate(slopes)[tells], np.concatenate(pairs)[tells]
    slower = np.count_nonzero(telling > 0.0) / len(telling)
    clear = slower >= 0.5 + _ONE_IN_TWENTY * _deviation(sides)
    return float(np.median(telling)) if clear else 0.0
