"""The node, model and requests that are simulated, as options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from tdpipe.simulation.scenario import Scenario

_TABLE_SUFFIX = ".csv"
_MAX_KV_TOKENS = 1_000_000_000
"""A hundred times the KV cache of the largest node."""

ModelName = Annotated[
    str | None,
    typer.Option(
        help="Known model, or a directory with a config.json.",
        metavar="NAME|DIR",
        show_default=False,
    ),
]
TraceFile = Annotated[
    Path | None,
    typer.Option(help="CSV of request lengths; if absent, a synthetic mix.", metavar="FILE"),
]
LongestPrompt = Annotated[
    int | None,
    typer.Option(min=1, help="Leave out requests with longer prompts.", show_default=False),
]
Lengths = Annotated[
    str,
    typer.Option(help="What the scheduler knows of output lengths: oracle, classifier or mean."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the random draw of requests.")]
KVBandwidth = Annotated[
    float | None,
    typer.Option(min=1.0, help="GB/s at which a GPU reads the KV cache.", show_default=False),
]
KVCapacity = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=_MAX_KV_TOKENS,
        help="Number of tokens that the KV cache holds.",
        show_default=False,
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
    """Create the scenario: a node of known GPUs with a model, or the stages of a profile file.

    Args:
        hardware: number and kind of GPUs, such as `4xL20`.
        model: name or directory of the model.
        option: command-line option that gave `hardware`, for errors.
        profile: file of `tdpipe profile`, or a CSV of a whole model's times.
        kv_bandwidth: GB/s at which a GPU reads the KV cache.
        kv_capacity: number of tokens that the KV cache holds.

    Raises:
        SettingsError: an option is missing, cannot be read, or contradicts the profile file.
    """
    if profile is not None and profile.suffix.lower() != _TABLE_SUFFIX:
        from tdpipe.core.profile import read_profile_file
        from tdpipe.simulation.scenario import profiled_scenario

        measured = read_profile_file(profile, "--profile")
        for name, given in (
            (option, hardware),
            ("--model", model),
            ("--kv-bandwidth", kv_bandwidth),
        ):
            if given is not None:
                problem = f"cannot be given together with {profile.name}, which already sets it"
                raise SettingsError(name, problem, "leave it out")
        return profiled_scenario(measured, profile.name, kv_capacity)
    if hardware is None or model is None:
        name, example = (option, "4xL20") if hardware is None else ("--model", "llama-2-13b")
        remedy = f"give a value such as {example}, or a file of `tdpipe profile` as --profile"
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
        measured_kv_bandwidth=None if kv_bandwidth is None else kv_bandwidth * 1e9,
        kv_tokens=kv_capacity,
        option=option,
    )


def kv_room_remedy(option: str, kv_capacity: int | None) -> tuple[str, str]:
    """Return the option that makes the KV cache larger, and how: `--kv-capacity` if it was given, else `option`."""
    return (option, "give more GPUs") if kv_capacity is None else ("--kv-capacity", "raise it")
