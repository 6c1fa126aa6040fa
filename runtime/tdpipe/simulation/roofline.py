"""Estimated stage times from a GPU's figures and a model's sizes, for use where none were measured.

A matrix product takes as long as reading its weights or multiplying whole tiles of tokens, whichever is longer, so time
over tokens is a staircase. The share of its figures that a GPU reaches, and the cost of partly filled tiles, are fitted
to whole-model tables measured on an L20; on other GPUs they are an estimate.
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
"""Number of tokens that a matrix product computes together."""
_SMALL_TILES = (128, 64, 16)
"""Numbers of tokens up to which a product uses a narrower tile, or a single tile, which does not fill the GPU."""
_MAX_TABLE_TOKENS = 4096
"""Largest number of tokens in a table; beyond it, time is proportional to tokens."""
_MAX_HEAD_ROWS = 256
"""Largest number of tokens of a step that the head computes: all tokens of a decode batch are sampled from, but only
the last one of a prompt."""
KV_EFFICIENCY = 0.85
"""Share of the memory bandwidth at which KV is read. It is assumed, since the fitted tables read no KV."""
RESERVED_BYTES = 3 * 2**29
"""Bytes of each GPU that its context, communication buffers and activations take."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of its figures that a GPU reaches."""

    layer_seconds: float
    """Fixed seconds of a layer, for starting and ending its kernels."""
    activation_passes: float
    """Number of times that a layer moves a token's hidden and intermediate vectors through memory."""
    bandwidth: float
    """Share of the peak bandwidth at which weights are read."""
    flops: float
    """Share of the peak FLOP/s in full tiles."""
    tiles_128: float
    """Cost of up to 128 tokens, in full tiles."""
    tiles_64: float
    """Cost of up to 64 tokens, in full tiles."""
    tiles_16: float
    """Cost of up to 16 tokens, in full tiles."""


@dataclass(frozen=True, slots=True)
class FitError:
    """Relative errors of estimated against measured times."""

    mean: float
    worst: float
    worst_tokens: int
    """Batch tokens of the worst error."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Measured times of a whole model on one GPU, each of a single prompt."""

    hardware: Hardware
    sizes: ModelSizes
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
"""Fit to Llama-2-13B and Qwen2.5-32B on an L20, 1 to 2048 tokens (MLSysU/TD-Pipe, profiler-results).

For an A100 (microsoft/vidur's profiles of 7B and 8B layers, without attention) they are 1 to 5 % high up to 128 tokens,
12 to 14 % low up to 256, and 18 to 20 % low beyond: that card reaches a smaller share of its FLOP/s.
"""
FITTED_ERROR = FitError(mean=0.020, worst=0.086, worst_tokens=130)
"""Error of `FITTED` on the times that it was fitted to."""


def pipeline_cost(
    hardware: Hardware,
    sizes: ModelSizes,
    stages: int,
    efficiency: Efficiency = FITTED,
    *,
    option: str = "--hardware",
) -> CostModel:
    """Estimate the cost of steps on a pipeline of one GPU per stage, with the head on the last stage.

    Args:
        hardware: The GPU of each stage.
        sizes: The sizes of the model.
        stages: The number of stages.
        efficiency: The shares of its figures that the GPU reaches.
        option: The option that the GPUs were given by, for error messages.

    Raises:
        SettingsError: The model has fewer layers than stages.
    """
    tokens = _table_tokens()
    costs = []
    for stage, layers in enumerate(_layers(sizes, stages, option)):
        seconds = _body_seconds(hardware, sizes, layers, tokens, efficiency)
        if stage == stages - 1:
            seconds += _head_seconds(
                hardware, sizes, np.minimum(tokens, _MAX_HEAD_ROWS), efficiency
            )
        per_context = layers * sizes.layer_kv_bytes(BFLOAT16_BYTES) / kv_bandwidth(hardware)
        costs.append(StageCost(tokens.astype(np.int32), seconds, per_context))
    return CostModel(tuple(costs))


def whole_model_table(
    hardware: Hardware, sizes: ModelSizes, efficiency: Efficiency = FITTED
) -> TimeTable:
    """Estimate the times of the whole model on one GPU, as if its memory were large enough."""
    (stage,) = pipeline_cost(hardware, sizes, 1, efficiency=efficiency).stages
    return TimeTable(stage.table_tokens, stage.table_seconds)


def kv_bandwidth(hardware: Hardware) -> float:
    """Return the B/s at which a GPU is assumed to read KV."""
    return hardware.memory_bandwidth * KV_EFFICIENCY


def kv_capacity_tokens(
    hardware: Hardware,
    sizes: ModelSizes,
    gpus: int,
    utilisation: float = 0.9,
    *,
    option: str = "--hardware",
) -> int:
    """Return the number of tokens whose KV fits every stage of a pipeline.

    Args:
        hardware: The GPU of each stage.
        sizes: The sizes of the model.
        gpus: The number of stages.
        utilisation: The share of a GPU's memory that may be used.
        option: The option that the GPUs were given by, for error messages.

    Raises:
        SettingsError: The weights do not fit, or the model has fewer layers than stages.
    """
    capacity = []
    for stage, layers in enumerate(_layers(sizes, gpus, option)):
        # A tied head needs a second copy of the embedding, unless both are on the same stage.
        embeddings = (stage == 0) + (stage == gpus - 1 and not (sizes.tied and gpus == 1))
        weights = BFLOAT16_BYTES * (layers * sizes.layer_weights + embeddings * sizes.head_weights)
        kv_memory = kv_memory_bytes(hardware, sizes, weights, utilisation, option)
        capacity.append(kv_memory / (layers * sizes.layer_kv_bytes(BFLOAT16_BYTES)))
    return int(min(capacity))


def kv_memory_bytes(
    hardware: Hardware,
    sizes: ModelSizes,
    weights: float,
    utilisation: float,
    option: str = "--hardware",
) -> float:
    """Return the bytes that are left for KV on a GPU.

    Args:
        hardware: The GPU.
        sizes: The sizes of the model.
        weights: The bytes of the model's weights on the GPU.
        utilisation: The share of the GPU's memory that may be used.
        option: The option that the GPUs were given by, for error messages.

    Raises:
        SettingsError: No memory is left.
    """
    usable = hardware.memory_bytes * utilisation - RESERVED_BYTES
    if weights >= usable:
        problem = (
            f"{weights / 2**30:.1f} GiB of {sizes.name}'s weights are on one {hardware.name}, which has "
            f"{max(usable, 0) / 2**30:.1f} GiB for weights and KV cache"
        )
        raise SettingsError(option, problem, "use more GPUs, or larger ones")
    return usable - weights


def fit_efficiency(measured: Sequence[Measured]) -> Efficiency:
    """Fit the efficiency to measured times by least squares of the relative error.

    Every doubling of tokens has the same weight; otherwise the many sizes of prefill would outweigh the few of decode.

    Args:
        measured: Tables that start at 1 token, preferably of several models.
    """
    weights = np.concatenate([1 / np.sqrt(each.table.tokens) for each in measured])

    def residuals(logs: FloatArray) -> FloatArray:
        return weights * _relative_errors(measured, Efficiency(*map(float, np.exp(logs))))

    start = Efficiency(5e-5, 2.0, 0.9, 0.9, 1.3, 1.2, 1.1)
    return Efficiency(*map(float, np.exp(_least_squares(residuals, np.log(astuple(start))))))


def fit_error(measured: Sequence[Measured], efficiency: Efficiency = FITTED) -> FitError:
    """Return the errors of estimates against measured times."""
    errors = np.abs(_relative_errors(measured, efficiency))
    tokens = np.concatenate([each.table.tokens for each in measured])
    return FitError(float(errors.mean()), float(errors.max()), int(tokens[errors.argmax()]))


def _relative_errors(measured: Sequence[Measured], efficiency: Efficiency) -> FloatArray:
    errors = []
    for each in measured:
        tokens = each.table.tokens.astype(np.float64)
        layers = each.sizes.layers
        seconds = _body_seconds(each.hardware, each.sizes, layers, tokens, efficiency)
        seconds += _head_seconds(each.hardware, each.sizes, np.ones_like(tokens), efficiency)
        errors.append(seconds / each.table.seconds - 1)
    return np.concatenate(errors)


def _least_squares(residuals: Callable[[FloatArray], FloatArray], start: FloatArray) -> FloatArray:
    """Minimise the sum of squared residuals from `start` with the Levenberg-Marquardt method."""
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


def _layers(sizes: ModelSizes, stages: int, option: str) -> tuple[int, ...]:
    """Return the number of layers of each stage, as even as possible."""
    if not 1 <= stages <= sizes.layers:
        problem = f"{stages} GPUs cannot share the {sizes.layers} layers of {sizes.name}"
        raise SettingsError(option, problem, f"use 1 to {sizes.layers}")
    return balance_costs([1] * sizes.layers, stages)


def _table_tokens() -> FloatArray:
    """Return [n] tokens between which time is linear: both sides of every step of the staircase."""
    last = {1, *_SMALL_TILES, *range(TILE, _MAX_TABLE_TOKENS + 1, TILE)}
    both = sorted(last | {tokens + 1 for tokens in last if tokens < _MAX_TABLE_TOKENS})
    return np.array(both, dtype=np.float64)


def _body_seconds(
    hardware: Hardware, sizes: ModelSizes, layers: int, tokens: FloatArray, efficiency: Efficiency
) -> FloatArray:
    width = sizes.hidden_size + sizes.intermediate_size
    moved = tokens * efficiency.activation_passes * width * BFLOAT16_BYTES
    moving = moved / (hardware.memory_bandwidth * efficiency.bandwidth)
    product = _product_seconds(hardware, sizes.layer_weights, tokens, efficiency)
    return layers * (efficiency.layer_seconds + moving + product)


def _head_seconds(
    hardware: Hardware, sizes: ModelSizes, rows: FloatArray, efficiency: Efficiency
) -> FloatArray:
    return _product_seconds(hardware, sizes.head_weights, rows, efficiency)


def _product_seconds(
    hardware: Hardware, weights: int, tokens: FloatArray, efficiency: Efficiency
) -> FloatArray:
    """Return [n] seconds of the product of a matrix of `weights` elements with [n] `tokens`."""
    tiles = np.ceil(tokens / TILE)
    costs = (efficiency.tiles_128, efficiency.tiles_64, efficiency.tiles_16)
    for limit, cost in zip(_SMALL_TILES, costs, strict=True):
        tiles = np.where(tokens <= limit, cost, tiles)
    # The product with a single token's vector takes only the time of reading the matrix.
    tiles = np.where(tokens <= 1, 0.0, tiles)
    reading = weights * BFLOAT16_BYTES / (hardware.memory_bandwidth * efficiency.bandwidth)
    multiplying = 2 * weights * TILE * tiles / (hardware.flops * efficiency.flops)
    return np.maximum(reading, multiplying)
