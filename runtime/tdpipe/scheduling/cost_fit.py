"""Fits the cost model to measured steps.

A price that is only noise would be multiplied by a long context. So prices come from steps that are equal in everything
else, and only where their times differ by more than chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.scheduling.cost_model import CostModel, StageCost

if TYPE_CHECKING:
    from tdpipe.core.step import FloatArray, IntArray

_SIGNIFICANCE_DEVIATIONS = 1.64
"""Number of standard deviations above the mean that a normal variable exceeds in one of twenty cases."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One executed step that the cost model is fitted to."""

    tokens: int
    """Number of batch tokens."""
    context: int
    """Number of KV tokens that were read (see `kv_reads`)."""
    sampled: int
    """Number of tokens that were sampled."""
    seconds: tuple[float, ...]
    """[stages] seconds for which each stage was busy."""


def fit_cost(observations: list[Observation]) -> CostModel:
    """Fit each stage's table, seconds per KV token and seconds per sampled token to measured steps.

    The price of a KV token is taken from steps that differ only in the KV that they read. The price of a sampled token,
    which the last stage pays, is taken from steps that differ only in that and in how many tokens they sample. Each
    price is 0 where the times do not differ by more than chance. The table takes the median time of each token count
    after both prices are subtracted, made to ascend.

    Raises:
        ValueError: there is no observation.
    """
    if not observations:
        raise ValueError("no observation to fit from")
    stages = len(observations[0].seconds)
    last = stages - 1
    return CostModel(
        tuple(_fit_stage(observations, stage, samples=stage == last) for stage in range(stages))
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
    medians = [max(1e-7, float(np.median(base[tokens == point]))) for point in points]
    table = _ascending(medians, counts.tolist())
    return StageCost(points.astype(np.int32), table, per_context, per_sampled)


def _ascending(values: list[float], weights: list[int]) -> FloatArray:
    """Return the nearest ascending values: where one is above the next, both become their weighted mean, repeatedly."""
    pools: list[tuple[float, int, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, total, count = value, weight, 1
        while pools and pools[-1][0] > mean:
            last_mean, last_total, last_count = pools.pop()
            mean = (mean * total + last_mean * last_total) / (total + last_total)
            total, count = total + last_total, count + last_count
        pools.append((mean, total, count))
    return np.repeat([mean for mean, _, _ in pools], [count for _, _, count in pools])


def _deviation(pairs: IntArray) -> float:
    """Return the standard deviation of the share of pairs whose first step is the slower one, if that is chance.

    This is the deviation of the Mann-Whitney test for two groups that make so many pairs. Pairs of several token counts
    are treated as those of one comparison: a machine that drifts slows steps of all counts alike, so they are not
    independent.

    Args:
        pairs: [n, 2] indices of steps.
    """
    first, second = (len(np.unique(side)) for side in pairs.T)
    ratio = math.sqrt(first / second)
    groups = math.sqrt(len(pairs)) * (ratio + 1.0 / ratio)
    return math.sqrt((groups + 1.0) / (12.0 * len(pairs)))


def _price(amount: FloatArray, seconds: FloatArray, equal: tuple[FloatArray, ...]) -> float:
    """Return the seconds that each unit of `amount` costs, from steps that are equal in all of `equal`.

    Each pair of a step with a large and one with a small amount gives a slope. Of the slopes with the largest
    difference of the amount relative to the time, the median is taken, which steps that were held up do not distort.
    The price is 0 unless more of these slopes are positive than chance makes in one of twenty cases (rank-sum test).

    Args:
        amount: [steps] amount whose price is wanted.
        seconds: [steps] time of each step.
        equal: arrays [steps] in which the steps of a pair agree.
    """
    slopes, weights, pairs = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, 2), dtype=np.int32)]
    keys = np.stack(equal, axis=1)
    for key in np.unique(keys, axis=0):
        steps = np.flatnonzero((keys == key).all(axis=1))
        here, times = amount[steps], seconds[steps]
        large = here > here.max() / 2
        difference = here[large][:, None] - here[~large]
        slopes.append(((times[large][:, None] - times[~large]) / difference).ravel())
        weights.append((difference / np.median(times)).ravel())
        grid = np.meshgrid(steps[large], steps[~large], indexing="ij")
        pairs.append(np.stack([each.ravel() for each in grid], axis=1).astype(np.int32))
    weight = np.concatenate(weights)
    if not len(weight):
        return 0.0
    heaviest = weight >= weight.max() / 2
    chosen, chosen_pairs = np.concatenate(slopes)[heaviest], np.concatenate(pairs)[heaviest]
    slower = np.count_nonzero(chosen > 0.0) / len(chosen)
    significant = slower >= 0.5 + _SIGNIFICANCE_DEVIATIONS * _deviation(chosen_pairs)
    return float(np.median(chosen)) if significant else 0.0
