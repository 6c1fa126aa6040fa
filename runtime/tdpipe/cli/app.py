"""The command line: registers the commands, and prints an error as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from tdpipe import __version__
from tdpipe.cli.bench import EPILOG as BENCH_EPILOG
from tdpipe.cli.bench import bench
from tdpipe.cli.controller import EPILOG as CONTROLLER_EPILOG
from tdpipe.cli.controller import controller
from tdpipe.cli.plan import EPILOG as PLAN_EPILOG
from tdpipe.cli.plan import plan
from tdpipe.cli.probe import EPILOG as PROBE_EPILOG
from tdpipe.cli.probe import probe
from tdpipe.cli.profile import EPILOG as PROFILE_EPILOG
from tdpipe.cli.profile import profile
from tdpipe.cli.serve import EPILOG as SERVE_EPILOG
from tdpipe.cli.serve import serve
from tdpipe.cli.simulate import EPILOG as SIMULATE_EPILOG
from tdpipe.cli.simulate import simulate
from tdpipe.cli.train_predictor import EPILOG as TRAIN_PREDICTOR_EPILOG
from tdpipe.cli.train_predictor import train_predictor
from tdpipe.cli.worker import EPILOG as WORKER_EPILOG
from tdpipe.cli.worker import worker
from tdpipe.core.errors import TDPipeError, one_line

app = typer.Typer(
    name="tdpipe",
    help="High-throughput LLM inference by temporally-disaggregated pipeline parallelism.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
_COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (serve, SERVE_EPILOG),
    (controller, CONTROLLER_EPILOG),
    (worker, WORKER_EPILOG),
    (probe, PROBE_EPILOG),
    (simulate, SIMULATE_EPILOG),
    (plan, PLAN_EPILOG),
    (profile, PROFILE_EPILOG),
    (bench, BENCH_EPILOG),
    (train_predictor, TRAIN_PREDICTOR_EPILOG),
)
for _command, _epilog in _COMMANDS:
    # Without a short help of their own, commands are listed with a cut-off first sentence.
    _summary = (_command.__doc__ or "").partition(".")[0] + "."
    app.command(short_help=_summary, epilog=_epilog)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tdpipe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    The exit status is one of `ExitCode`; wrong usage counts as configuration.

    Args:
        arguments: command-line arguments without the program's name; None takes them from `sys.argv`.
    """
    try:
        app(arguments, prog_name="tdpipe")
    except TDPipeError as error:
        typer.echo(f"error: {one_line(error)}", err=True)
        sys.exit(error.exit_code)
