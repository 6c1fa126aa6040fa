"""What is simulated: a model on a node's GPUs, as stages and, for comparison, with all GPUs on every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.latencies import Latencies
from tdpipe.simulation.known_models import BFLOAT16_BYTES
from tdpipe.simulation.profile_table import read_time_table, stage_costs
from tdpipe.simulation.roofline import (
    FITTED_ERROR,
    kv_bandwidth,
    kv_capacity_tokens,
    pipeline_cost,
    whole_model_table,
)
from tdpipe.simulation.tensor_parallel import (
    divides_heads,
    tensor_parallel_cost,
    tensor_parallel_kv_tokens,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tdpipe.core.model_sizes import ModelSizes
    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.simulation.hardware import Hardware
    from tdpipe.simulation.stage_timeline import ControlOnStage

_CONTROL_LATENCY = 100e-6
"""Seconds of a message between the controller and a stage, or from the last stage to the first (ZeroMQ over TCP)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Costs and room of both ways to split the model."""

    name: str
    stages: int
    pipeline: CostModel
    pipeline_kv_tokens: int
    tensor_parallel: CostModel | None
    """None where it is not known, or cannot be."""
    tensor_parallel_kv_tokens: int
    latencies: Latencies
    used: tuple[str, ...]
    """What the figures rest on, a line each."""
    no_tensor_parallel: tuple[str, str] | None = None
    """Where it is not there: why, and what to do about it."""
    control: ControlOnStage | None = None
    """Of a pipeline whose stage 0 schedules, too; None where the controller is apart."""


def make_scenario(
    hardware: Hardware,
    shape: ModelSizes,
    stages: int,
    *,
    profile: Path | None = None,
    kv_bandwidth_given: float | None = None,
    kv_tokens: int | None = None,
    option: str = "--hardware",
) -> Scenario:
    """A scenario from the catalogue, or from a measured table of the whole model.

    Args:
        hardware: of each stage.
        shape: of the model.
        stages: GPUs.
        profile: a CSV of the whole model's times; else the roofline's estimate is taken.
        kv_bandwidth_given: B/s at which a GPU reads KV; else a share of its memory's bandwidth.
        kv_tokens: that the KV cache holds on either split; else what the memory has left.
        option: that the GPUs were given by, for messages.

    Raises:
        SettingsError: the profile cannot be read, or the model does not fit the GPUs.
    """
    bandwidth = kv_bandwidth_given or kv_bandwidth(hardware)
    per_token = shape.kv_bytes(BFLOAT16_BYTES)
    used = [
        f"{stages} x {hardware.name} ({hardware.source})",
        f"KV is read at {bandwidth / 1e9:.0f} GB/s"
        + ("" if kv_bandwidth_given else ", an assumed share of the memory's bandwidth"),
    ]
    if profile is None:
        table = whole_model_table(hardware, shape)
        pipeline = pipeline_cost(hardware, shape, stages, option=option)
        used.append(
            f"stage times estimated from the GPU's figures by factors fitted on measured L20 tables, which they match "
            f"within {FITTED_ERROR.mean:.1%} on average and {FITTED_ERROR.worst:.1%} at worst"
        )
    else:
        table = read_time_table(profile, "--profile")
        pipeline = stage_costs(table, stages, per_token, bandwidth)
        used.append(f"stage times of {profile.name}, divided evenly among the stages")
    pipeline_kv = kv_tokens or kv_capacity_tokens(hardware, shape, stages, option=option)
    room = f"KV cache of {pipeline_kv} tokens in stages"
    tensor_parallel, tensor_kv, missing = None, 0, None
    if divides_heads(shape, stages):
        tensor_kv = kv_tokens or tensor_parallel_kv_tokens(hardware, shape, stages, option=option)
        room += f", {tensor_kv} with tensor parallelism"
        tensor_parallel = tensor_parallel_cost(
            hardware,
            stages,
            shape.layers,
            shape.hidden_size,
            table,
            per_context=per_token / bandwidth,
            kv_heads=shape.kv_heads,
        )
    else:
        heads = f"{shape.heads} heads and {shape.kv_heads} KV heads"
        uneven = f"{stages} GPUs do not share {heads} evenly"
        room += f"; no tensor parallelism, since {uneven}"
        missing = (uneven, "leave it out, or give another number of GPUs")
    used.append(room)
    latencies = Latencies(
        step=_CONTROL_LATENCY,
        activations=hardware.peer_latency,
        activation_token=BFLOAT16_BYTES * shape.hidden_size / hardware.peer_bandwidth,
        feedback=_CONTROL_LATENCY,
    )
    name = f"{shape.name} on {stages} x {hardware.name}"
    return Scenario(
        name,
        stages,
        pipeline,
        pipeline_kv,
        tensor_parallel,
        tensor_kv,
        latencies,
        tuple(used),
        missing,
    )
