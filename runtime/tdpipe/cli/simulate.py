"""`tdpipe simulate`: simulates how a node performs under each scheduling policy."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdpipe.cli.output_file import check_output, check_picture, write_output
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
from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from tdpipe.simulation.figures import Figures

_REQUESTS = 1000

EPILOG = """\b
Examples:
  tdpipe simulate --hardware 4xL20 --model llama-2-13b                    every policy, a synthetic mix
  tdpipe simulate --hardware 4xL20 --model qwen2.5-32b --trace lengths.csv --longest-prompt 1024 \\
      --policy adaptive,hybrid --budget 256 --picture run.png

\b
A trace is a CSV with the columns num_prefill_tokens and num_decode_tokens, or TIMESTAMP, ContextTokens and
GeneratedTokens. Nothing is measured: the first lines of the output name the assumptions.
"""


def simulate(
    hardware: Annotated[
        str | None,
        typer.Option(
            help="Number and kind of the node's GPUs.", metavar="4xL20", show_default=False
        ),
    ] = None,
    model: ModelName = None,
    trace: TraceFile = None,
    policy: Annotated[
        str, typer.Option(help="Policies to simulate, or all.", metavar="NAME,...")
    ] = "all",
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Number of requests to draw; if absent, {_REQUESTS} or all of a shorter trace.",
        ),
    ] = None,
    arrivals: Annotated[
        bool,
        typer.Option(
            "--arrivals",
            help="Use the trace's arrival times; if absent, all requests arrive at once.",
        ),
    ] = False,
    longest_prompt: LongestPrompt = None,
    lengths: Lengths = "classifier",
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Token budget of every policy except reference, which has none.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Step times: a file of `tdpipe profile`, which replaces --hardware and --model, or a CSV of the whole "
            "model's times; if absent, estimated from the GPU.",
            metavar="FILE",
        ),
    ] = None,
    kv_bandwidth: KVBandwidth = None,
    kv_capacity: KVCapacity = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="max_tokens of each request; if absent, the longest output.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the rows to this file.", metavar="FILE"),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw stages and KV cache of each policy, in a file with the policy in its name.",
            metavar="FILE.png",
        ),
    ] = None,
) -> None:
    """Simulate a node under one or more scheduling policies."""
    from tdpipe.simulation.candidate import (
        check_budget,
        check_kv_capacity,
        find_candidates,
    )
    from tdpipe.simulation.candidate import simulate as simulate_candidate
    from tdpipe.simulation.figures import figures_of
    from tdpipe.simulation.length_knowledge import parse_knowledge
    from tdpipe.simulation.trace import read_trace, sample, sample_size
    from tdpipe.simulation.workload import make_jobs

    check_output(json_file, "--json")
    check_picture(picture, "--picture")
    scenario = choose_scenario(
        hardware,
        model,
        option="--hardware",
        profile=profile,
        kv_bandwidth=kv_bandwidth,
        kv_capacity=kv_capacity,
    )
    candidates = find_candidates(policy, tensor_parallel=scenario.tensor_parallel is not None)
    for each in candidates:
        check_output(_picture_path(picture, each.name), "--picture")
    if budget is not None:
        check_budget(candidates)
    rows = read_trace(trace, longest_prompt)
    if arrivals and not any(row.arrival for row in rows):
        problem = "all requests of the trace arrive at once, or it has no column TIMESTAMP"
        raise SettingsError("--arrivals", problem, "leave it out")
    requests = sample_size(rows, requests, _REQUESTS)
    drawn = sample(rows, requests, seed, arrivals=arrivals)
    jobs = make_jobs(drawn, rows, parse_knowledge(lengths), seed, max_tokens)
    option, remedy = kv_room_remedy("--hardware", kv_capacity)
    lower = "--longest-prompt" if max_tokens is None else "--max-tokens or --longest-prompt"
    for each in candidates:
        check_kv_capacity(each, scenario, jobs, option, remedy, lower)
    typer.echo(
        f"{scenario.name}, {requests} requests of {trace.name if trace else 'a synthetic mix'}"
    )
    for line in scenario.assumptions:
        typer.echo(f"  {line}")
    typer.echo(f"  output lengths known to the scheduler: {lengths}\n\n{_HEADER}")
    results = []
    for candidate in candidates:
        if budget is not None:
            candidate = replace(candidate.with_budget(budget), name=candidate.name)
        record, timeline = simulate_candidate(
            candidate, scenario, jobs, keep_timeline=picture is not None
        )
        results.append(figures_of(candidate.name, record))
        typer.echo(_row(results[-1]))
        if (path := _picture_path(picture, candidate.name)) is not None:
            from tdpipe.simulation.picture import draw_run

            draw_run(path, f"{candidate.name}: {scenario.name}", record, timeline)
    if not any(each.filled for each in results):
        typer.echo(_KV_NOT_FILLED_NOTE)
    if json_file is not None:
        rows_found = json.dumps([asdict(each) for each in results], indent=2)
        write_output(json_file, f"{rows_found}\n".encode(), "--json")


_KV_NOT_FILLED_NOTE = (
    "\nThe requests never filled the KV cache: with more --requests the policies reach more tokens/s "
    "and may rank differently."
)


def _picture_path(picture: Path | None, policy: str) -> Path | None:
    """Return the file of a policy's picture."""
    return None if picture is None else picture.with_stem(f"{picture.stem}-{policy}")


_HEADER = (
    f"{'policy':<12} {'out tok/s':>9} {'steady':>7} {'run s':>8} {'bubble-free s':>13} {'bubble % by stage':>22} "
    f"{'switches':>8} {'preempted':>9} {'KV peak':>7} {'TTFT p50/p90/p99 s':>24} {'TPOT p50/p90/p99 ms':>22}"
)


def _row(figures: Figures) -> str:
    bubbles = " ".join(f"{each * 100:.1f}" for each in figures.bubble)
    ttft = " / ".join(f"{each:.2f}" for each in figures.ttft)
    tpot = " / ".join(f"{each * 1e3:.0f}" for each in figures.tpot) or "none"
    return (
        f"{figures.policy:<12} {figures.output_tokens_per_second:>9.0f} "
        f"{figures.steady_tokens_per_second:>7.0f} {figures.seconds:>8.1f} "
        f"{figures.bubble_free_seconds:>13.1f} {bubbles:>22} {figures.phase_switches:>8} "
        f"{figures.preemptions:>9} {figures.kv_peak:>7.0%} {ttft:>24} {tpot:>22}"
    )
