"""From measured steps to the figures of a profile, and how far these are off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.controller.profiling import Kind
from tdpipe.scheduling.cost_model import CostModel, MixingCost, Observation, fit_cost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tdpipe.controller.synthetic_steps import Executed
    from tdpipe.scheduling.cost_model import StageCost

_TILE, _LONGEST_TILE = 128, 4_096
"""Tokens of a chunk that read the context once: where no chunk was measured, and where its reading took no time."""


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


def fit_profile(steps: Mapping[Kind, Sequence[Executed]]) -> ProfileFit:
    """Fit table and KV reading to pure steps, then chunks and mixed steps to what these leave.

    Raises:
        ValueError: no step without context was measured.
    """
    pure = fit_cost(
        [
            Observation(
                each.step.tokens, int(each.step.first.sum()), int(each.step.sample.sum()), each.busy
            )
            for kind in (Kind.TABLE, Kind.PROMPT, Kind.DECODE)
            for each in steps[kind]
        ]
    )
    tile = _chunk_tile(pure, steps[Kind.CHUNK])
    mixing = _mixing(pure, steps[Kind.MIXED])
    cost = CostModel(pure.stages, mixing, tile)
    errors = {kind: _error(cost, seen) for kind, seen in steps.items() if seen}
    return ProfileFit(cost, mixing, tile, errors)


def _chunk_tile(cost: CostModel, chunks: Sequence[Executed]) -> int:
    """Tokens of a chunk that read the sequence's earlier KV once, by what chunks take beyond the table."""
    tiles = []
    for each in chunks:
        context, count = float(each.step.first.sum()), int(each.step.counts[0])
        for stage, seconds in zip(cost.stages, each.busy, strict=True):
            beyond = seconds - _table(stage, each)
            reads = beyond / (stage.per_context * context) if stage.per_context > 0.0 else 0.0
            tiles.append(count / reads if reads > 0.0 else _LONGEST_TILE)
    return int(np.clip(np.median(tiles), 1, _LONGEST_TILE)) if tiles else _TILE


def _mixing(cost: CostModel, mixed: Sequence[Executed]) -> MixingCost:
    """What mixed steps take beyond pure ones: some seconds, and a slower reading of KV."""
    if not mixed:
        return MixingCost()
    reading, beyond = [], []
    for each in mixed:
        context = float(each.step.first.sum())
        for stage, seconds in zip(cost.stages, each.busy, strict=True):
            reading.append(stage.per_context * context)
            beyond.append(seconds - _table(stage, each) - reading[-1])
    columns = np.stack([np.ones(len(beyond)), np.array(reading)], axis=1)
    (fixed, slower), *_ = np.linalg.lstsq(columns, np.array(beyond), rcond=None)
    if slower < 0.0:
        fixed, slower = float(np.median(beyond)), 0.0
    elif fixed < 0.0:
        total = float(np.dot(reading, reading))
        fixed, slower = 0.0, float(np.dot(reading, beyond)) / total if total else 0.0
    return MixingCost(max(float(fixed), 0.0), 1.0 + max(float(slower), 0.0))


def _table(stage: StageCost, each: Executed) -> float:
    """Seconds of such a step without context."""
    tokens = np.array([each.step.tokens], dtype=np.float64)
    return float(stage.seconds(tokens, np.zeros(1), float(each.step.sample.sum()))[0])


def _error(cost: CostModel, seen: Sequence[Executed]) -> KindError:
    equal: dict[tuple[int, int, int], list[Executed]] = {}
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
