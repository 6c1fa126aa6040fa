"""`tdpipe profile`: measures once how long steps take on each stage, and keeps the result in a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdpipe.cli.command_settings import (
    ConfigFile,
    Device,
    ModelPath,
    StageCount,
    load_command_settings,
)
from tdpipe.cli.output_file import check_output
from tdpipe.cli.startup_report import StartupReport

if TYPE_CHECKING:
    from tdpipe.core.profile import Profile
    from tdpipe.measurement.profile_fit import ProfileFit

EPILOG = """\b
Examples:
  tdpipe profile --stages 2 --output demo.yaml                      the demo model
  tdpipe profile --model ~/models/Qwen3-32B --stages 4 --output qwen3-32b.yaml
  tdpipe serve --config tdpipe.yaml                                 with scheduler: {profile: qwen3-32b.yaml}

\b
Measure on the machine that will serve, with the same settings, while nothing else runs.
"""

_POOR_FIT_ERROR = 0.1
"""Mean error above which a profile should not be served with."""


def profile(
    output: Annotated[
        Path,
        typer.Option(
            help="File to write: JSON if its name ends in .json, else YAML.", metavar="FILE"
        ),
    ],
    model: ModelPath = None,
    stages: StageCount = None,
    device: Device = None,
    config: ConfigFile = None,
    seconds: Annotated[
        float,
        typer.Option(min=1.0, help="Time that measuring may take, in seconds, without the start."),
    ] = 60.0,
) -> None:
    """Measure a model's stages on this machine, for the scheduler and the simulator."""
    check_output(output, "--output")
    flags: dict[str, dict[str, Any]] = {
        "model": {"path": model, "device": device},
        "pipeline": {"stages": stages},
    }
    settings = load_command_settings(config, flags)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")

    from tdpipe.core.profile import write_profile_file
    from tdpipe.measurement.measured_profile import measure_profile

    measured, fit = measure_profile(settings, seconds, StartupReport().step)
    write_profile_file(output, measured)
    typer.echo(_summary(measured, fit))
    typer.echo(f"\nwrote {output}")


def _summary(profile: Profile, fit: ProfileFit) -> str:
    from tdpipe.core.profile import device_list

    source = profile.provenance
    lines = [
        (
            f"{source.model.name} in {source.dtype} on {len(profile.stages)} stages: "
            f"{device_list(source.devices)}"
        ),
        (
            f"{'stage':>5} {'layers':>6} {'points':>6} {'ms at 1 token':>13} {'ms at max tokens':>16} "
            f"{'us/1000 KV tokens':>17} {'us/sampled token':>16}"
        ),
    ]
    for stage, table in enumerate(profile.stages):
        longest = f"{table.seconds[-1] * 1e3:.1f} at {table.tokens[-1]}"
        lines.append(
            f"{stage:>5} {source.partition[stage]:>6} {len(table.tokens):>6} "
            f"{table.seconds[0] * 1e3:>13.2f} {longest:>16} {table.per_kv_token * 1e9:>17.1f} "
            f"{table.per_sampled_token * 1e6:>16.1f}"
        )
    latencies = profile.latencies
    lines += [
        (
            f"a mixed step takes {profile.mixing.seconds * 1e3:.2f} ms more and reads KV "
            f"{profile.mixing.decode_context:.2f} times as long"
        ),
        f"a chunk reads its context once per {profile.chunk_tile} tokens",
        (
            f"a message takes {latencies.step * 1e6:.0f} us from the controller, "
            f"{latencies.feedback * 1e6:.0f} us back, "
            f"{latencies.activations * 1e6:.0f} us and {latencies.activation_token * 1e6:.2f} us a token between stages"
        ),
        f"{'fit':<7} {'steps':>6} {'error, mean':>11} {'median':>7} {'95% within':>10} {'noise':>6}",
    ]
    for kind, error in fit.errors.items():
        lines.append(
            f"{kind:<7} {error.steps:>6} {error.mean:>11.1%} {error.bias:>+7.1%} {error.worst:>10.1%} "
            f"{error.noise:>6.1%}"
        )
    if profile.fit_error is not None and profile.fit_error.mean > _POOR_FIT_ERROR:
        lines.append("the fit is poor: measure again with nothing else running, or for longer")
    return "\n".join(lines)
