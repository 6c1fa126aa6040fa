"""The pipeline that a profile file was measured on, to be simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.core.profile import device_list
from tdpipe.scheduling.profiled_cost import profiled_cost
from tdpipe.simulation.scenario import Scenario

if TYPE_CHECKING:
    from tdpipe.core.profile import Profile


def profiled_scenario(profile: Profile, source: str, kv_tokens: int | None = None) -> Scenario:
    """Stages, messages and room as they were measured; what tensor parallelism would do is not known.

    Args:
        profile: of the stages.
        source: name of its file, for people.
        kv_tokens: that the KV cache holds; as many as when it was measured if left out.
    """
    made = profile.provenance
    stages = len(profile.stages)
    devices = device_list(made.devices)
    room = kv_tokens or made.kv_tokens
    fit = profile.fit_error
    error = f", which fit the measured times within {fit.mean:.1%} on average" if fit else ""
    return Scenario(
        f"{made.model.name} on {stages} stages",
        stages,
        profiled_cost(profile),
        room,
        None,
        0,
        profile.latencies,
        (
            f"times of {source}, measured on {made.date} in {made.dtype} on {devices}{error}",
            f"KV cache of {room} tokens",
        ),
        (
            f"nothing in {source} tells what it would take",
            "leave it out, or give a table of the whole model",
        ),
    )
