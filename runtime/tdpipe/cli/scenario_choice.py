"""What a simulation rests on, as the commands that simulate let people choose it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from tdpipe.simulation.scenario import Scenario

_TABLE = ".csv"
_MOST_KV_TOKENS = 1_000_000_000
"""Of a KV cache: a hundred times what the largest node holds."""

KVBandwidth = Annotated[
    float | None, typer.Option(min=1.0, help="GB/s at which a GPU reads KV.", show_default=False)
]
KVCapacity = Annotated[
    int | None,
    typer.Option(
        min=1, max=_MOST_KV_TOKENS, help="Tokens that the KV cache holds.", show_default=False
    ),
]


def choose_scenario(
    hardware: str | None,
    model: str | None,
    *,
    option: str,
    profile: Path | None,
    kv_bandwidth: float | None,
    kv_capacity: int | None,
) -> Scenario:
    """A node of the catalogue with a model, or the stages of a profile file.

    Args:
        hardware: such as `4xL20`.
        model: name or directory.
        option: that `hardware` was given by, for messages.
        profile: a file of `tdpipe profile`, or a CSV of a whole model's times.
        kv_bandwidth: GB/s at which a GPU reads KV.
        kv_capacity: tokens that the KV cache holds.

    Raises:
        SettingsError: something is missing, cannot be read, or would be of no use.
    """
    if profile is not None and profile.suffix.lower() != _TABLE:
        from tdpipe.core.profile import read_profile_file
        from tdpipe.simulation.profiled_scenario import profiled_scenario

        measured = read_profile_file(profile, "--profile")
        for name, given in (
            (option, hardware),
            ("--model", model),
            ("--kv-bandwidth", kv_bandwidth),
        ):
            if given is not None:
                problem = f"is of no use beside {profile.name}, which tells it"
                raise SettingsError(name, problem, "leave it out")
        return profiled_scenario(measured, profile.name, kv_capacity)
    if hardware is None or model is None:
        name, example = (option, "4xL20") if hardware is None else ("--model", "llama-2-13b")
        remedy = f"give such as {example}, or a file of `tdpipe profile` as --profile"
        raise SettingsError(name, "is missing", remedy)
    from tdpipe.simulation.hardware import parse_hardware
    from tdpipe.simulation.known_models import load_model_sizes
    from tdpipe.simulation.scenario import make_scenario

    stages, gpu = parse_hardware(hardware, option)
    return make_scenario(
        gpu,
        load_model_sizes(model),
        stages,
        profile=profile,
        kv_bandwidth_given=None if kv_bandwidth is None else kv_bandwidth * 1e9,
        kv_tokens=kv_capacity,
        option=option,
    )


def scarce_room(option: str, kv_capacity: int | None) -> tuple[str, str]:
    """The option that leaves too little KV cache, and how it gives more: what was given, else the node of `option`."""
    return (option, "give more GPUs") if kv_capacity is None else ("--kv-capacity", "raise it")
