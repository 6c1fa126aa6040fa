"""Stage times where none were measured, from a GPU's figures and a model's sizes.

A matrix product takes as long as reading its weights or as multiplying whole tiles of tokens, whichever is longer, so
time is a staircase over tokens. What a GPU reaches of its figures, and what tiles cost that are not full, is fitted to
whole-model tables that were measured on an L20; on other GPUs it is an estimate.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.errors import SettingsError
from tdpipe.model.partition import balance_costs
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.simulation.known_models import BFLOAT16_BYTES
from tdpipe.simulation.profile_table import TimeTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tdpipe.core.model_sizes import ModelSizes
    from tdpipe.core.step import FloatArray
    from tdpipe.simulation.hardware import Hardware

TILE = 128
"""Tokens that a product computes together."""
_NARROW = (128, 64, 16)
"""Tokens up to which a product takes a narrower tile, or one that alone does not fill the GPU."""
_LONGEST = 4096
"""Tokens up to which tables go; beyond, time is in proportion."""
_HEAD_ROWS = 256
"""Tokens of a step that the head computes, at most: a decode batch's are all sampled from, a prompt's only the last."""
KV_EFFICIENCY = 0.85
"""Of memory bandwidth when KV is read: assumed, since no table that was fitted reads any."""
RESERVED_BYTES = 3 * 2**29
"""Of each GPU, for its context, its communication buffers and activations."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a GPU reaches of its figures."""

    layer_seconds: float
    """Fixed time of a layer: kernels' starts and ends."""
    activation_passes: float
    """Times that a layer moves a token's hidden and intermediate vectors through memory."""
    bandwidth: float
    """Of peak, when weights are read."""
    flops: float
    """Of peak, in full tiles."""
    tiles_128: float
    """What up to 128 tokens cost, in tiles of more."""
    tiles_64: float
    tiles_16: float


@dataclass(frozen=True, slots=True)
class FitError:
    """How far estimates are off measured times, relative to these."""

    mean: float
    worst: float
    worst_tokens: int
    """Batch tokens of the worst."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A whole model's times on one GPU, each of a single prompt, and what they were measured on."""

    hardware: Hardware
    shape: ModelSizes
    table: TimeTable


FITTED = Efficiency(
    layer_seconds=96.8e-6,
    activation_passes=4.11,
    bandwidth=0.940,
    flops=0.908,
    tiles_128=1.409,
    tiles_64=1.326,
    tiles_16=1.107,
)
"""Llama-2-13B and Qwen2.5-32B on an L20, 1 to 2048 tokens (MLSysU/TD-Pipe, profiler-results).

Against an A100 (microsoft/vidur's profiles of 7B and 8B layers, which leave attention out) they are 1 to 5 % high up to
128 tokens, 12 to 14 % low up to 256, and 18 to 20 % low beyond: that card reaches less of its FLOP/s.
"""
FITTED_ERROR = FitError(mean=0.020, worst=0.086, worst_tokens=130)
"""Of `FITTED`, over the times that it was fitted to."""


def pipeline_cost(
    hardware: Hardware,
    shape: ModelSizes,
    stages: int,
    efficiency: Efficiency = FITTED,
    *,
    option: str = "--hardware",
) -> CostModel:
    """The cost of steps on a pipeline of one GPU a stage, the head on the last one.

    Args:
        hardware: of each stage.
        shape: of the model.
        stages: number of them.
        efficiency: what the GPU reaches.
        option: that the GPUs were given by, for messages.

    Raises:
        SettingsError: there are not as many layers.
    """
    tokens = _edges()
    costs = []
    for stage, layers in enumerate(_layers(shape, stages, option)):
        seconds = _body_seconds(hardware, shape, layers, tokens, efficiency)
        if stage == stages - 1:
            seconds += _head_seconds(hardware, shape, np.minimum(tokens, _HEAD_ROWS), efficiency)
        per_context = layers * shape.layer_kv_bytes(BFLOAT16_BYTES) / kv_bandwidth(hardware)
        costs.append(StageCost(tokens.astype(np.int32), seconds, per_context))
    return CostModel(tuple(costs))


def whole_model_table(
    hardware: Hardware, shape: ModelSizes, efficiency: Efficiency = FITTED
) -> TimeTable:
    """Times of the whole model on one GPU, were it large enough."""
    (stage,) = pipeline_cost(hardware, shape, 1, efficiency=efficiency).stages
    return TimeTable(stage.table_tokens, stage.table_seconds)


def kv_bandwidth(hardware: Hardware) -> float:
    """B/s at which a GPU reads KV."""
    return hardware.memory_bandwidth * KV_EFFICIENCY


def kv_capacity_tokens(
    hardware: Hardware,
    shape: ModelSizes,
    gpus: int,
    utilisation: float = 0.9,
    *,
    option: str = "--hardware",
) -> int:
    """Tokens whose KV fits a pipeline of `gpus` stages: what fits the stage with the least room.

    Args:
        hardware: of each stage.
        shape: of the model.
        gpus: number of stages.
        utilisation: share of a GPU's memory that may be used.
        option: that the GPUs were given by, for messages.

    Raises:
        SettingsError: the weights do not fit, or there are not as many layers.
    """
    capacity = []
    for stage, layers in enumerate(_layers(shape, gpus, option)):
        # A head that is tied needs the embedding a second time, unless it is on the same stage.
        ends = (stage == 0) + (stage == gpus - 1 and not (shape.tied and gpus == 1))
        weights = BFLOAT16_BYTES * (layers * shape.layer_weights + ends * shape.head_weights)
        room = kv_room(hardware, shape, weights, utilisation, option)
        capacity.append(room / (layers * shape.layer_kv_bytes(BFLOAT16_BYTES)))
    return int(min(capacity))


def kv_room(
    hardware: Hardware,
    shape: ModelSizes,
    weights: float,
    utilisation: float,
    option: str = "--hardware",
) -> float:
    """Bytes for KV on a GPU that holds so many bytes of the model's weights; `option` is for messages.

    Raises:
        SettingsError: there are none.
    """
    usable = hardware.memory_bytes * utilisation - RESERVED_BYTES
    if weights >= usable:
        problem = (
            f"{weights / 2**30:.1f} GiB of {shape.name}'s weights are on one {hardware.name}, which has "
            f"{max(usable, 0) / 2**30:.1f} GiB for weights and KV cache"
        )
        raise SettingsError(option, problem, "use more GPUs, or larger ones")
    return usable - weights


def fit_efficiency(measured: Sequence[Measured]) -> Efficiency:
    """The efficiency whose estimates are nearest to measured times, by least squares of the relative error.

    Each doubling of tokens counts alike: otherwise a thousand sizes of prefill would outvote the few of decode.

    Args:
        measured: whole-model tables from 1 token on, at best of several models.
    """
    weights = np.concatenate([1 / np.sqrt(each.table.tokens) for each in measured])

    def residuals(logs: FloatArray) -> FloatArray:
        return weights * _relative_errors(measured, Efficiency(*map(float, np.exp(logs))))

    start = Efficiency(5e-5, 2.0, 0.9, 0.9, 1.3, 1.2, 1.1)
    return Efficiency(*map(float, np.exp(_least_squares(residuals, np.log(astuple(start))))))


def fit_error(measured: Sequence[Measured], efficiency: Efficiency = FITTED) -> FitError:
    """How far estimates are off the measured times."""
    errors = np.abs(_relative_errors(measured, efficiency))
    tokens = np.concatenate([each.table.tokens for each in measured])
    return FitError(float(errors.mean()), float(errors.max()), int(tokens[errors.argmax()]))


def _relative_errors(measured: Sequence[Measured], efficiency: Efficiency) -> FloatArray:
    errors = []
    for each in measured:
        tokens = each.table.tokens.astype(np.float64)
        layers = each.shape.layers
        seconds = _body_seconds(each.hardware, each.shape, layers, tokens, efficiency)
        seconds += _head_seconds(each.hardware, each.shape, np.ones_like(tokens), efficiency)
        errors.append(seconds / each.table.seconds - 1)
    return np.concatenate(errors)


def _least_squares(residuals: Callable[[FloatArray], FloatArray], start: FloatArray) -> FloatArray:
    """Levenberg and Marquardt's method, from `start` to where it gets no better."""
    at, damping, step = start, 1e-2, 1e-6
    here = residuals(at)
    for _ in range(300):
        slopes = np.stack(
            [(residuals(at + step * unit) - here) / step for unit in np.eye(len(at))], axis=1
        )
        normal = slopes.T @ slopes
        normal += damping * np.diag(np.diag(normal) + 1e-12)
        there = at + np.linalg.solve(normal, -slopes.T @ here)
        then = residuals(there)
        if then @ then < here @ here:
            gain = here @ here - then @ then
            at, here, damping = there, then, damping / 3
            if gain < 1e-10 * (here @ here):
                break
        elif damping > 1e9:
            break
        else:
            damping *= 4
    return at


def _layers(shape: ModelSizes, stages: int, option: str) -> tuple[int, ...]:
    """Of each stage, as even as they go."""
    if not 1 <= stages <= shape.layers:
        problem = f"{stages} GPUs cannot share the {shape.layers} layers of {shape.name}"
        raise SettingsError(option, problem, f"use 1 to {shape.layers}")
    return balance_costs([1] * shape.layers, stages)


def _edges() -> FloatArray:
    """[n] tokens between which times are lines: both sides of every step."""
    last = {1, *_NARROW, *range(TILE, _LONGEST + 1, TILE)}
    both = sorted(last | {tokens + 1 for tokens in last if tokens < _LONGEST})
    return np.array(both, dtype=np.float64)


def _body_seconds(
    hardware: Hardware, shape: ModelSizes, layers: int, tokens: FloatArray, efficiency: Efficiency
) -> FloatArray:
    width = shape.hidden_size + shape.intermediate_size
    moved = tokens * efficiency.activation_passes * width * BFLOAT16_BYTES
    moving = moved / (hardware.memory_bandwidth * efficiency.bandwidth)
    product = _product_seconds(hardware, shape.layer_weights, tokens, efficiency)
    return layers * (efficiency.layer_seconds + moving + product)


def _head_seconds(
    hardware: Hardware, shape: ModelSizes, rows: FloatArray, efficiency: Efficiency
) -> FloatArray:
    return _product_seconds(hardware, shape.head_weights, rows, efficiency)


def _product_seconds(
    hardware: Hardware, weights: int, tokens: FloatArray, efficiency: Efficiency
) -> FloatArray:
    """[n] seconds of a product of a matrix of so many elements with [n] `tokens`."""
    tiles = np.ceil(tokens / TILE)
    costs = (efficiency.tiles_128, efficiency.tiles_64, efficiency.tiles_16)
    for most, cost in zip(_NARROW, costs, strict=True):
        tiles = np.where(tokens <= most, cost, tiles)
    # A single token is a product with a vector, which only reads.
    tiles = np.where(tokens <= 1, 0.0, tiles)
    reading = weights * BFLOAT16_BYTES / (hardware.memory_bandwidth * efficiency.bandwidth)
    multiplying = 2 * weights * TILE * tiles / (hardware.flops * efficiency.flops)
    return np.maximum(reading, multiplying)
