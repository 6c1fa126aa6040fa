"""`tdpipe bench`: compares the real engine, over stages that only wait, with the simulator."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdpipe.cli.output_file import check_output, write_output
from tdpipe.cli.scenario_choice import (
    KVBandwidth,
    KVCapacity,
    Lengths,
    LongestPrompt,
    ModelName,
    Seed,
    TraceFile,
    choose_scenario,
    kv_room_remedy,
)
from tdpipe.cli.startup_report import StartupReport
from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.measurement.paced_run import PacedComparison
    from tdpipe.measurement.steady_window import SteadyWindow

_REQUESTS = 2000

EPILOG = """\b
Examples:
  tdpipe bench --paced 4xL20 --model llama-2-13b --policy hybrid --budget 128
  tdpipe bench --profile model.yaml                    with stages that `tdpipe profile` measured
  tdpipe bench --paced 4xL20 --model qwen2.5-32b --profile L20-Qwen2.5-32B.csv --trace lengths.csv \\
      --longest-prompt 1024 --max-running 400

\b
Engine, scheduler, Ray actors and messages are real. Stages compute nothing: each waits for the time
that its GPU would compute, and passes 8 bytes per token on, which arrive as late as the activations would over the
GPU's link.
"""


def bench(
    paced: Annotated[
        str | None,
        typer.Option(
            help="Number and kind of the GPUs that are simulated.",
            metavar="4xL20",
            show_default=False,
        ),
    ] = None,
    model: ModelName = None,
    trace: TraceFile = None,
    policy: Annotated[str, typer.Option(help="Scheduling policy.")] = "adaptive",
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Number of requests, all at once; if absent, {_REQUESTS} or all of a shorter trace.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="Length of the measured steady state, in seconds.")
    ] = 60.0,
    ramp: Annotated[
        float, typer.Option(min=0.0, help="Time before the steady state, in seconds.")
    ] = 30.0,
    longest_prompt: LongestPrompt = None,
    lengths: Lengths = "classifier",
    budget: Annotated[
        int | None, typer.Option(min=1, help="Token budget of the policy.", show_default=False)
    ] = None,
    max_running: Annotated[
        int, typer.Option(min=1, help="Maximum number of requests that hold KV cache at once.")
    ] = 2048,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Step times: a file of `tdpipe profile`, which replaces --paced and --model, or a CSV of the whole "
            "model's times; if absent, estimated from the GPU.",
            metavar="FILE",
        ),
    ] = None,
    kv_bandwidth: KVBandwidth = None,
    kv_capacity: KVCapacity = None,
    seed: Seed = 0,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write all figures to this file.", metavar="FILE"),
    ] = None,
) -> None:
    """Run the engine in real time on simulated GPUs, and compare it with the simulator."""
    from tdpipe.measurement.paced_run import PacedPlan, compare_paced
    from tdpipe.simulation.candidate import check_budget, check_kv_capacity, find_candidates
    from tdpipe.simulation.length_knowledge import parse_knowledge
    from tdpipe.simulation.trace import read_trace, sample, sample_size
    from tdpipe.simulation.workload import make_jobs

    check_output(json_file, "--json")
    scenario = choose_scenario(
        paced,
        model,
        option="--paced",
        profile=profile,
        kv_bandwidth=kv_bandwidth,
        kv_capacity=kv_capacity,
    )
    candidate, *others = find_candidates(policy)
    if others or candidate.tensor_parallel:
        raise SettingsError(
            "--policy", f"{policy} is not one pipeline policy", "give the name of one"
        )
    if budget is not None:
        check_budget([candidate])
        candidate = candidate.with_budget(budget)
    settings = candidate.settings.model_copy(update={"max_running": max_running})
    rows = read_trace(trace, longest_prompt)
    requests = sample_size(rows, requests, _REQUESTS)
    drawn = sample(rows, requests, seed, arrivals=False)
    jobs = make_jobs(drawn, rows, parse_knowledge(lengths), seed)
    option, remedy = kv_room_remedy("--paced", kv_capacity)
    check_kv_capacity(candidate, scenario, jobs, option, remedy)
    plan = PacedPlan(
        scenario.pipeline, scenario.pipeline_kv_tokens, scenario.latencies, settings, jobs
    )
    mix = trace.name if trace else "a synthetic mix"
    typer.echo(f"{scenario.name}, {requests} requests of {mix}, {candidate.name}")
    for line in scenario.assumptions:
        typer.echo(f"  {line}")
    typer.echo(f"  output lengths known to the scheduler: {lengths}")
    compared = compare_paced(plan, StartupReport().step, ramp=ramp, seconds=seconds)
    typer.echo(_table(compared))
    if json_file is not None:
        figures = asdict(compared) | {"loss": compared.loss, "deviation": compared.deviation}
        write_output(json_file, f"{json.dumps(figures, indent=2)}\n".encode(), "--json")


def _table(compared: PacedComparison) -> str:
    """Format the comparison as a table and three lines."""
    run = compared.paced
    expected_loss = 1.0 - compared.simulated.tokens_per_second / compared.ideal.tokens_per_second
    columns = (run.window, compared.ideal, compared.simulated)
    names = ("paced engine", "simulated at no control cost", "simulated")
    lines = ["", " " * 31 + "".join(f"{name:>30}" for name in names)]
    lines += [
        f"{name:<31}" + "".join(f"{cell(each):>30}" for each in columns)
        for name, cell in _rows(len(run.window.stages))
    ]
    lines += [
        "",
        (
            f"control-plane loss {compared.loss:+.2%} (of which the simulator expects {expected_loss:.2%}); "
            f"throughput {compared.deviation:+.2%} against the simulator"
        ),
        f"{run.running} requests running, {run.preemptions} preemptions, {run.phase_switches} phase switches",
        (
            f"controller {run.controller_share:.1%} of a core: the engine's thread {run.engine_share:.1%}, "
            f"of which the scheduler {run.scheduler_share:.1%}"
        ),
    ]
    return "\n".join(lines)


def _rows(stages: int) -> list[tuple[str, Callable[[SteadyWindow], str]]]:
    def shares(stage: int) -> Callable[[SteadyWindow], str]:
        def cell(window: SteadyWindow) -> str:
            each = window.stages[stage]
            return f"{each.busy * 100:.1f} / {each.bubble * 100:.1f} / {each.idle * 100:.1f}"

        return cell

    return [
        ("output tokens/s", lambda window: f"{window.tokens_per_second:.0f}"),
        ("from, for s", lambda window: f"{window.begin:.1f}, {window.seconds:.1f}"),
        *((f"stage {stage} busy/bubble/idle %", shares(stage)) for stage in range(stages)),
        ("TTFT p50/p90/p99 s", lambda window: _joined(window.ttft, 1.0, 2)),
        ("TPOT p50/p90/p99 ms", lambda window: _joined(window.tpot, 1e3, 1)),
    ]


def _joined(values: tuple[float, ...], factor: float, digits: int) -> str:
    return " / ".join(f"{each * factor:.{digits}f}" for each in values) or "none"
