"""`tdpipe plan`: recommends GPUs, their number and a policy for a model and its requests."""

from __future__ import annotations

from typing import Annotated

import typer

from tdpipe.cli.scenario_choice import LongestPrompt, Seed, TraceFile
from tdpipe.core.errors import SettingsError

_REQUESTS = 500

EPILOG = """\b
Example:
  tdpipe plan --model llama-2-70b --trace lengths.csv --gpus 4,8

Everything is simulated from the GPUs' data sheets, with factors fitted to measurements on an L20. For other GPUs the
figures are estimates: measure one stage with `tdpipe profile` before you buy many.
"""
_KV_NOT_FILLED_NOTE = (
    "* the requests never filled the KV cache: with more --requests these nodes may reach more "
    "tokens/s"
)


def plan(
    model: Annotated[
        str,
        typer.Option(help="Known model, or a directory with a config.json.", metavar="NAME|DIR"),
    ],
    trace: TraceFile = None,
    hardware: Annotated[
        str, typer.Option(help="Kinds of GPU to compare, or all.", metavar="NAME,...")
    ] = "all",
    gpus: Annotated[
        str, typer.Option(help="Numbers of GPUs to compare, one stage each.", metavar="N,...")
    ] = "1,2,4,8",
    policy: Annotated[
        str, typer.Option(help="Policies to compare, or all.", metavar="NAME,...")
    ] = "adaptive,hybrid,temporal",
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Number of requests to draw; if absent, {_REQUESTS} or all of a shorter trace.",
        ),
    ] = None,
    longest_prompt: LongestPrompt = None,
    seed: Seed = 0,
) -> None:
    """Compare nodes for a model and its requests, and recommend one."""
    from tdpipe.simulation.candidate import find_candidates
    from tdpipe.simulation.hardware import parse_kinds
    from tdpipe.simulation.known_models import load_model_sizes
    from tdpipe.simulation.plan import best, options
    from tdpipe.simulation.roofline import FITTED_ERROR
    from tdpipe.simulation.trace import read_trace, sample, sample_size
    from tdpipe.simulation.workload import make_jobs

    sizes = load_model_sizes(model)
    kinds, numbers = parse_kinds(hardware), _numbers(gpus)
    rows = read_trace(trace, longest_prompt)
    requests = sample_size(rows, requests, _REQUESTS)
    jobs = make_jobs(sample(rows, requests, seed, arrivals=False), rows, "classifier", seed)
    typer.echo(
        f"{sizes.name}, {requests} requests at once of {trace.name if trace else 'a synthetic mix'}\n"
        f"  simulated; stage times estimated from the GPUs' figures, {FITTED_ERROR.mean:.1%} off on average on an L20\n"
        "  bfloat16 weights and KV, 90% of each GPU's memory used, an uncontended PCIe link each\n"
        "  lengths known as by a classifier that is right for 55% of the requests\n\n"
        f"{'GPUs':<18} {'policy':<10} {'out tok/s':>9} {'per GPU':>8} {'bubble':>7} {'KV peak':>7}"
    )
    found = []
    for each in options(kinds, numbers, sizes, find_candidates(policy), jobs):
        found.append(each)
        node = f"{each.gpus} x {each.hardware.name}"
        if each.figures is None:
            typer.echo(f"{node:<18} {each.policy:<10} {each.refusal}")
            continue
        bubble = sum(each.figures.bubble) / len(each.figures.bubble)
        typer.echo(
            f"{node:<18} {each.policy:<10} {each.rate:>9.0f} {each.rate / each.gpus:>8.0f} {bubble:>7.1%} "
            f"{each.figures.kv_peak:>7.0%}{'' if each.filled else ' *'}"
        )
    chosen = best(found)
    if chosen is None:
        problem = f"none of these nodes can serve the requests with {sizes.name}"
        raise SettingsError(
            "--gpus", problem, "follow the remedies in the rows, or give other kinds as --hardware"
        )
    if any(each.figures is not None and not each.filled for each in found):
        typer.echo(_KV_NOT_FILLED_NOTE)
    fastest, most_per_gpu = chosen
    typer.echo(
        f"\nMost tokens per second: {fastest.gpus} x {fastest.hardware.name}, {fastest.policy}. "
        f"Most per GPU: {most_per_gpu.gpus} x {most_per_gpu.hardware.name}, {most_per_gpu.policy}."
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(each) for each in text.split(","))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise SettingsError(
            "--gpus", f"{text!r} is not a list of positive numbers", "give numbers such as 2,4,8"
        )
    return tuple(dict.fromkeys(numbers))
