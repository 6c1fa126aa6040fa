"""Scenarios: a model on the GPUs of a node, as a pipeline and, for comparison, with tensor parallelism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.latencies import Latencies
from tdpipe.core.profile import device_list
from tdpipe.scheduling.cost_model import profiled_cost
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
    from tdpipe.core.profile import Profile
    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.simulation.hardware import Hardware
    from tdpipe.simulation.stage_timeline import ControlOnStage

_CONTROL_LATENCY = 100e-6
"""Seconds of a message between controller and stage, or from the last stage to the first (ZeroMQ over TCP)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Costs and KV capacity of both ways to divide the model among the GPUs."""

    name: str
    stages: int
    pipeline: CostModel
    pipeline_kv_tokens: int
    tensor_parallel: CostModel | None
    """Cost of tensor parallelism; None if it is unknown or impossible."""
    tensor_parallel_kv_tokens: int
    latencies: Latencies
    assumptions: tuple[str, ...]
    """Lines for people that state what the figures are based on."""
    no_tensor_parallel: tuple[str, str] | None = None
    """Problem and remedy if there is no tensor parallelism."""
    control: ControlOnStage | None = None
    """Scheduling by stage 0 of the pipeline; None if the controller is a process of its own."""


def make_scenario(
    hardware: Hardware,
    sizes: ModelSizes,
    stages: int,
    *,
    profile: Path | None = None,
    measured_kv_bandwidth: float | None = None,
    kv_tokens: int | None = None,
    option: str = "--hardware",
) -> Scenario:
    """Make a scenario from the figures of a GPU, or from a measured table of the whole model.

    Args:
        hardware: The GPU of each stage.
        sizes: The sizes of the model.
        stages: The number of GPUs.
        profile: A CSV of the whole model's times; None takes the roofline's estimate.
        measured_kv_bandwidth: B/s at which a GPU reads KV; None takes a share of its memory bandwidth.
        kv_tokens: The number of tokens that the KV cache holds either way; None takes what fits the memory.
        option: The option that the GPUs were given by, for error messages.

    Raises:
        SettingsError: The profile cannot be read, or the model does not fit the GPUs.
    """
    bandwidth = measured_kv_bandwidth or kv_bandwidth(hardware)
    per_token = sizes.kv_bytes(BFLOAT16_BYTES)
    assumptions = [
        f"{stages} x {hardware.name} ({hardware.source})",
        f"KV is read at {bandwidth / 1e9:.0f} GB/s"
        + ("" if measured_kv_bandwidth else ", an assumed share of the memory's bandwidth"),
    ]
    if profile is None:
        table = whole_model_table(hardware, sizes)
        pipeline = pipeline_cost(hardware, sizes, stages, option=option)
        assumptions.append(
            f"stage times estimated from the GPU's figures by factors fitted on measured L20 tables, which they match "
            f"within {FITTED_ERROR.mean:.1%} on average and {FITTED_ERROR.worst:.1%} at worst"
        )
    else:
        table = read_time_table(profile, "--profile")
        pipeline = stage_costs(table, stages, per_token, bandwidth)
        assumptions.append(f"stage times of {profile.name}, divided evenly among the stages")
    pipeline_kv = kv_tokens or kv_capacity_tokens(hardware, sizes, stages, option=option)
    capacity = f"KV cache of {pipeline_kv} tokens in stages"
    tensor_parallel, tensor_kv, missing = None, 0, None
    if divides_heads(sizes, stages):
        tensor_kv = kv_tokens or tensor_parallel_kv_tokens(hardware, sizes, stages, option=option)
        capacity += f", {tensor_kv} with tensor parallelism"
        tensor_parallel = tensor_parallel_cost(
            hardware,
            stages,
            sizes.layers,
            sizes.hidden_size,
            table,
            per_context=per_token / bandwidth,
            kv_heads=sizes.kv_heads,
        )
    else:
        heads = f"{sizes.heads} heads and {sizes.kv_heads} KV heads"
        uneven = f"{stages} GPUs do not share {heads} evenly"
        capacity += f"; no tensor parallelism, since {uneven}"
        missing = (uneven, "leave it out, or give another number of GPUs")
    assumptions.append(capacity)
    latencies = Latencies(
        step=_CONTROL_LATENCY,
        activations=hardware.peer_latency,
        activation_token=BFLOAT16_BYTES * sizes.hidden_size / hardware.peer_bandwidth,
        feedback=_CONTROL_LATENCY,
    )
    name = f"{sizes.name} on {stages} x {hardware.name}"
    return Scenario(
        name,
        stages,
        pipeline,
        pipeline_kv,
        tensor_parallel,
        tensor_kv,
        latencies,
        tuple(assumptions),
        missing,
    )


def profiled_scenario(profile: Profile, source: str, kv_tokens: int | None = None) -> Scenario:
    """Make the scenario of the pipeline that a profile was measured on; its tensor parallelism is unknown.

    Args:
        profile: The profile.
        source: The name of its file, for people.
        kv_tokens: The number of tokens that the KV cache holds; None takes as many as during the measurement.
    """
    made = profile.provenance
    stages = len(profile.stages)
    kv_tokens = kv_tokens or made.kv_tokens
    fit = profile.fit_error
    error = f", which fit the measured times within {fit.mean:.1%} on average" if fit else ""
    return Scenario(
        f"{made.model.name} on {stages} stages",
        stages,
        profiled_cost(profile),
        kv_tokens,
        None,
        0,
        profile.latencies,
        (
            f"times of {source}, measured on {made.date} in {made.dtype} on {device_list(made.devices)}{error}",
            f"KV cache of {kv_tokens} tokens",
        ),
        (
            f"{source} has no times of tensor parallelism",
            "leave it out, or give a table of the whole model",
        ),
    )
