"""`tdpipe profile`: what steps take on each stage, measured once and kept in a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdpipe.cli.output_file import check_output
from tdpipe.cli.setting_option import only_given, setting_option
from tdpipe.core.settings import load_settings

if TYPE_CHECKING:
    from tdpipe.core.profile import Profile
    from tdpipe.measurement.profile_fit import ProfileFit

EPILOG = """\b
Examples:
  tdpipe profile --stages 2 --output demo.yaml                      the demo model
  tdpipe profile --model ~/models/Qwen3-32B --stages 4 --output qwen3-32b.yaml
  tdpipe serve --config tdpipe.yaml                                 with scheduler: {profile: qwen3-32b.yaml}

\b
Measure on the machine that will serve, with nothing else running, and with the same settings.
"""

_POOR = 0.1
"""Mean error of a fit that should not be served with."""


def profile(
    output: Annotated[
        Path, typer.Option(help="File to write: JSON if it ends so, else YAML.", metavar="FILE")
    ],
    model: Annotated[Path | None, setting_option("model", "path", "--model", metavar="DIR")] = None,
    stages: Annotated[
        int | None, setting_option("pipeline", "stages", "--stages", metavar="N")
    ] = None,
    device: Annotated[
        str | None, setting_option("model", "device", "--device", metavar="auto|cpu|cuda")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of settings.", show_default=False, metavar="FILE"),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="That measuring may take, apart from the start.")
    ] = 60.0,
) -> None:
    """Measure a model's stages on this machine, for the scheduler and the simulator."""
    check_output(output, "--output")
    flags: dict[str, dict[str, Any]] = {
        "model": {"path": model, "device": device},
        "pipeline": {"stages": stages},
    }
    settings = load_settings(config, only_given(flags))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")

    from tdpipe.cli.demo import with_model
    from tdpipe.cli.startup_report import StartupReport
    from tdpipe.core.profile import write_profile_file
    from tdpipe.measurement.measured_profile import measure_profile

    made, fit = measure_profile(with_model(settings), seconds, StartupReport().step)
    write_profile_file(output, made)
    typer.echo(_summary(made, fit))
    typer.echo(f"\nwritten to {output}")


def _summary(made: Profile, fit: ProfileFit) -> str:
    from tdpipe.core.profile import device_list

    source = made.provenance
    lines = [
        (
            f"{source.model.name} in {source.dtype} on {len(made.stages)} stages: "
            f"{device_list(source.devices)}"
        ),
        (
            f"{'stage':>5} {'layers':>6} {'points':>6} {'ms at 1 token':>13} {'ms at most':>16} "
            f"{'us/1000 KV tokens':>17} {'us/sampled token':>16}"
        ),
    ]
    for stage, table in enumerate(made.stages):
        most = f"{table.seconds[-1] * 1e3:.1f} at {table.tokens[-1]}"
        lines.append(
            f"{stage:>5} {source.partition[stage]:>6} {len(table.tokens):>6} "
            f"{table.seconds[0] * 1e3:>13.2f} {most:>16} {table.per_kv_token * 1e9:>17.1f} "
            f"{table.per_sampled_token * 1e6:>16.1f}"
        )
    late = made.latencies
    lines += [
        (
            f"a mixed step takes {made.mixing.seconds * 1e3:.2f} ms more and reads KV "
            f"{made.mixing.decode_context:.2f} times as long"
        ),
        f"a chunk reads its context once per {made.chunk_tile} tokens",
        (
            f"a message takes {late.step * 1e6:.0f} us from the controller, {late.feedback * 1e6:.0f} us back, "
            f"{late.activations * 1e6:.0f} us and {late.activation_token * 1e6:.2f} us a token between stages"
        ),
        f"{'fit':<7} {'steps':>6} {'error, mean':>11} {'median':>7} {'95% within':>10} {'noise':>6}",
    ]
    for kind, error in fit.errors.items():
        lines.append(
            f"{kind:<7} {error.steps:>6} {error.mean:>11.1%} {error.bias:>+7.1%} {error.worst:>10.1%} "
            f"{error.noise:>6.1%}"
        )
    if made.fit_error is not None and made.fit_error.mean > _POOR:
        lines.append("the fit is poor: measure again with nothing else running, or for longer")
    return "\n".join(lines)
