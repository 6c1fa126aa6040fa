"""From measured steps to the figures of a profile, and how far these are off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.measurement.profiling import Kind
from tdpipe.scheduling.cost_fit import Observation, fit_cost
from tdpipe.scheduling.cost_model import CHUNK_TILE, CostModel, MixingCost, kv_reads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tdpipe.controller.synthetic_steps import ExecutedStep

_TILES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1_024, 4_096)
"""Tokens of a chunk that may read earlier KV once."""


@dataclass(frozen=True, slots=True)
class KindError:
    """How far the fit is off steps of one kind, relative to the median time of equal steps, over all stages."""

    steps: int
    """That were measured."""
    mean: float
    """Of the absolute errors."""
    bias: float
    """Median of the errors; above 0 the fit is too slow."""
    worst: float
    """95th percentile of the absolute errors."""
    noise: float
    """Mean distance of equal steps from their median."""


@dataclass(frozen=True, slots=True)
class ProfileFit:
    """The figures."""

    cost: CostModel
    mixing: MixingCost
    chunk_tile: int
    errors: Mapping[Kind, KindError]
    """Of kinds that were measured."""


def fit_profile(steps: Mapping[Kind, Sequence[ExecutedStep]]) -> ProfileFit:
    """Fit table, KV reading and sampling to pure steps with the tile that suits chunks, then mixing to what is left.

    Raises:
        ValueError: no step without context was measured.
    """
    tile = _chunk_tile(steps)
    pure = _pure(steps, tile)
    mixing = _mixing(pure, steps[Kind.MIXED])
    cost = CostModel(pure.stages, mixing, tile)
    errors = {kind: _error(cost, seen) for kind, seen in steps.items() if seen}
    return ProfileFit(cost, mixing, tile, errors)


def _pure(steps: Mapping[Kind, Sequence[ExecutedStep]], tile: int) -> CostModel:
    """The costs of steps that are of one kind, if a tile of so many tokens reads earlier KV once."""
    seen = [
        Observation(
            each.step.tokens,
            int(kv_reads(each.step.first, each.step.counts, tile)),
            int(each.step.sample.sum()),
            each.busy,
        )
        for kind in (Kind.TABLE, Kind.PROMPT, Kind.DECODE)
        for each in steps[kind]
    ]
    return CostModel(fit_cost(seen).stages, None, tile)


def _chunk_tile(steps: Mapping[Kind, Sequence[ExecutedStep]]) -> int:
    """The tile with which chunks of prompts, short and long, cost what they took; the longest of equally good ones."""
    chunks = steps[Kind.CHUNK]
    if not chunks:
        return CHUNK_TILE
    took = np.array([each.busy for each in chunks])

    def error(tile: int) -> float:
        cost = _pure(steps, tile)
        told = np.array([cost.stage_seconds(each.step) for each in chunks])
        return float(np.abs(told / took - 1.0).mean())

    return min(reversed(_TILES), key=error)


def _mixing(cost: CostModel, mixed: Sequence[ExecutedStep]) -> MixingCost:
    """What mixed steps take beyond pure ones: some seconds, and a slower reading of KV."""
    if not mixed:
        return MixingCost()
    reading, beyond = [], []
    for each in mixed:
        step = each.step
        tokens, sampled = np.array([float(step.tokens)]), float(step.sample.sum())
        context = kv_reads(step.first, step.counts, cost.chunk_tile)
        for stage, seconds in zip(cost.stages, each.busy, strict=True):
            reading.append(stage.per_context * context)
            fresh = float(stage.seconds(tokens, np.zeros(1), sampled)[0])
            beyond.append(seconds - fresh - reading[-1])
    columns = np.stack([np.ones(len(beyond)), np.array(reading)], axis=1)
    (fixed, slower), *_ = np.linalg.lstsq(columns, np.array(beyond), rcond=None)
    if slower < 0.0:
        fixed, slower = float(np.median(beyond)), 0.0
    elif fixed < 0.0:
        total = float(np.dot(reading, reading))
        fixed, slower = 0.0, float(np.dot(reading, beyond)) / total if total else 0.0
    return MixingCost(max(float(fixed), 0.0), 1.0 + max(float(slower), 0.0))


def _error(cost: CostModel, seen: Sequence[ExecutedStep]) -> KindError:
    equal: dict[tuple[int, int, int], list[ExecutedStep]] = {}
    for each in seen:
        step = each.step
        equal.setdefault((step.tokens, len(step.slots), int(step.first.sum())), []).append(each)
    errors, noise = [], []
    for group in equal.values():
        busy = np.array([each.busy for each in group])
        usual = np.median(busy, axis=0)
        errors.append(np.array(cost.stage_seconds(group[0].step)) / usual - 1.0)
        noise.append(np.abs(busy / usual - 1.0).ravel())
    off = np.concatenate(errors)
    return KindError(
        len(seen),
        float(np.abs(off).mean()),
        float(np.median(off)),
        float(np.quantile(np.abs(off), 0.95)),
        float(np.concatenate(noise).mean()),
    )
