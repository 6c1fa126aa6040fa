"""Fit of a profile's cost model to measured steps, and the errors of the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.measurement.profiling import StepKind
from tdpipe.scheduling.cost_fit import Observation, fit_cost
from tdpipe.scheduling.cost_model import CHUNK_TILE, CostModel, MixingCost, kv_reads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tdpipe.controller.synthetic_steps import ExecutedStep

_CHUNK_TILES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1_024, 4_096)
"""Candidates for the number of a chunk's tokens that read earlier KV together."""


@dataclass(frozen=True, slots=True)
class KindError:
    """Errors of the fit for steps of one kind, relative to the median time of equal steps, over all stages."""

    steps: int
    """Number of measured steps."""
    mean: float
    """Mean of the absolute errors."""
    bias: float
    """Median of the errors; above 0 the fit takes too long."""
    worst: float
    """95th percentile of the absolute errors."""
    noise: float
    """Mean relative deviation of equal steps from their median."""


@dataclass(frozen=True, slots=True)
class ProfileFit:
    """The fitted cost model and its errors."""

    cost: CostModel
    mixing: MixingCost
    chunk_tile: int
    errors: Mapping[StepKind, KindError]
    """Errors of the kinds of steps that were measured."""


def fit_profile(steps: Mapping[StepKind, Sequence[ExecutedStep]]) -> ProfileFit:
    """Fit a cost model to measured steps.

    The table, KV reading and sampling are fitted to pure steps, with the tile that suits the chunks. Then the cost of
    mixing is fitted to the rest of the mixed steps' times.

    Raises:
        ValueError: No step without context was measured.
    """
    tile = _chunk_tile(steps)
    pure = _pure(steps, tile)
    mixing = _mixing(pure, steps[StepKind.MIXED])
    cost = CostModel(pure.stages, mixing, tile)
    errors = {kind: _error(cost, seen) for kind, seen in steps.items() if seen}
    return ProfileFit(cost, mixing, tile, errors)


def _pure(steps: Mapping[StepKind, Sequence[ExecutedStep]], tile: int) -> CostModel:
    """Fit the costs of pure steps, if every `tile` tokens of a chunk read earlier KV once."""
    seen = [
        Observation(
            each.step.tokens,
            int(kv_reads(each.step.first, each.step.counts, tile)),
            int(each.step.sample.sum()),
            each.busy,
        )
        for kind in (StepKind.TABLE, StepKind.PROMPT, StepKind.DECODE)
        for each in steps[kind]
    ]
    return CostModel(fit_cost(seen).stages, None, tile)


def _chunk_tile(steps: Mapping[StepKind, Sequence[ExecutedStep]]) -> int:
    """Return the tile that predicts the times of short and long chunks best; the largest of equally good ones."""
    chunks = steps[StepKind.CHUNK]
    if not chunks:
        return CHUNK_TILE
    measured = np.array([each.busy for each in chunks])

    def error(tile: int) -> float:
        cost = _pure(steps, tile)
        predicted = np.array([cost.stage_seconds(each.step) for each in chunks])
        return float(np.abs(predicted / measured - 1.0).mean())

    return min(reversed(_CHUNK_TILES), key=error)


def _mixing(cost: CostModel, mixed: Sequence[ExecutedStep]) -> MixingCost:
    """Fit what mixed steps take in addition to pure ones: fixed seconds, and slower reading of KV."""
    if not mixed:
        return MixingCost()
    reading, additional = [], []
    for each in mixed:
        step = each.step
        tokens, sampled = np.array([float(step.tokens)]), float(step.sample.sum())
        context = kv_reads(step.first, step.counts, cost.chunk_tile)
        for stage, seconds in zip(cost.stages, each.busy, strict=True):
            reading.append(stage.per_context * context)
            fresh = float(stage.seconds(tokens, np.zeros(1), sampled)[0])
            additional.append(seconds - fresh - reading[-1])
    columns = np.stack([np.ones(len(additional)), np.array(reading)], axis=1)
    (fixed, slower), *_ = np.linalg.lstsq(columns, np.array(additional), rcond=None)
    if slower < 0.0:
        fixed, slower = float(np.median(additional)), 0.0
    elif fixed < 0.0:
        total = float(np.dot(reading, reading))
        fixed, slower = 0.0, float(np.dot(reading, additional)) / total if total else 0.0
    return MixingCost(max(float(fixed), 0.0), 1.0 + max(float(slower), 0.0))


def _error(cost: CostModel, seen: Sequence[ExecutedStep]) -> KindError:
    equal: dict[tuple[int, int, int], list[ExecutedStep]] = {}
    for each in seen:
        step = each.step
        equal.setdefault((step.tokens, len(step.slots), int(step.first.sum())), []).append(each)
    errors, noise = [], []
    for group in equal.values():
        busy = np.array([each.busy for each in group])
        median = np.median(busy, axis=0)
        errors.append(np.array(cost.stage_seconds(group[0].step)) / median - 1.0)
        noise.append(np.abs(busy / median - 1.0).ravel())
    all_errors = np.concatenate(errors)
    return KindError(
        len(seen),
        float(np.abs(all_errors).mean()),
        float(np.median(all_errors)),
        float(np.quantile(np.abs(all_errors), 0.95)),
        float(np.concatenate(noise).mean()),
    )
