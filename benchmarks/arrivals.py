"""Measures in simulation the latency under arrivals over time, and what latency targets cost.

A window of a trace keeps its bursts; its arrival times are scaled so that the offered load is a share of the cell's
capacity, the throughput of the same requests all at once. All policies serve it, then `adaptive` with targets for TTFT
and TPOT. A target is met if the 99th percentile is within it. Nothing is measured on a GPU.

    python -m benchmarks.arrivals --trace ARRIVALS.csv --profiles DIRECTORY --json RESULT.json
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from benchmarks.machine import cpu_cores
from benchmarks.paper_work import CELLS, Task, candidates, scenario_of, tune
from benchmarks.results_file import add_json_option, open_results_file
from tdpipe.core.errors import TDPipeError
from tdpipe.scheduling.cost_model import row_kv_reads
from tdpipe.scheduling.policies.composition import candidate_budgets
from tdpipe.simulation.candidate import Candidate, make_candidate, simulate
from tdpipe.simulation.figures import Figures, figures_of, percentiles
from tdpipe.simulation.length_knowledge import Knowledge
from tdpipe.simulation.trace import SYNTHETIC, TraceRow, read_trace, sample
from tdpipe.simulation.workload import make_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.core.step import FloatArray
    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.simulation.workload import Job


@dataclass(frozen=True, slots=True)
class Target:
    """Bounds on latency in seconds; None is no bound."""

    ttft: float | None = None
    tpot: float | None = None

    def met(self, figures: Figures, percentile: int) -> bool:
        """Return whether a run meets the target; `percentile` is an index into the figures' percentiles."""
        return self._within((figures.ttft, figures.tpot), percentile)

    def reachable(self, floor: LatencyFloor, percentile: int) -> bool:
        """Return whether requests that are each alone in the pipeline meet the target."""
        return self._within((floor.ttft, floor.tpot), percentile)

    def _within(self, times: tuple[tuple[float, ...], ...], percentile: int) -> bool:
        # Without a request of two tokens there is no TPOT, and every bound holds.
        pairs = zip(times, (self.ttft, self.tpot), strict=True)
        return all(bound is None or not each or each[percentile] <= bound for each, bound in pairs)

    def __str__(self) -> str:
        parts = (("TTFT", self.ttft), ("TPOT", self.tpot))
        return ", ".join(f"{name} {bound:g} s" for name, bound in parts if bound) or "none"


@dataclass(frozen=True, slots=True)
class LatencyFloor:
    """Latency in seconds that no scheduler can improve: requests that are each alone in the pipeline."""

    ttft: tuple[float, ...]
    """50th, 90th and 99th percentile over requests."""
    tpot: tuple[float, ...]
    """50th, 90th and 99th percentile over requests."""


def trace_window(rows: list[TraceRow], count: int, seed: int) -> list[TraceRow]:
    """Return `count` rows with arrival times, consecutive ones if the trace has times.

    Rows of a trace without times get those of a Poisson process with one arrival per second.
    """
    if any(row.arrival for row in rows):
        return sample(rows, count, seed, arrivals=True)
    drawn = sample(rows, count, seed, arrivals=False)
    gaps = np.random.default_rng(seed).exponential(size=count)
    return [
        replace(row, arrival=float(time))
        for row, time in zip(drawn, np.cumsum(gaps) - gaps[0], strict=True)
    ]


def offered_rate(rows: Sequence[TraceRow]) -> float:
    """Return the output tokens per second that the rows request."""
    return sum(row.output_tokens for row in rows) / max(row.arrival for row in rows)


def scale_arrivals(rows: Sequence[TraceRow], factor: float) -> list[TraceRow]:
    """Return the rows with all arrival times multiplied by `factor`."""
    return [replace(row, arrival=row.arrival * factor) for row in rows]


def latency_floor(cost: CostModel, jobs: Sequence[Job]) -> LatencyFloor:
    """Return the latency of each job in an idle pipeline, with the chunk size that is best for its prompt."""
    alone = {prompt: _isolated_ttft(cost, prompt) for prompt in {job.prompt_tokens for job in jobs}}
    ttft = [alone[job.prompt_tokens] for job in jobs]
    several = [job for job in jobs if job.output_tokens > 1]
    context = np.array([job.prompt_tokens + job.output_tokens / 2 for job in several])
    row = np.ones_like(context)
    tpot = np.sum([stage.seconds(row, context, row) for stage in cost.stages], axis=0)
    return LatencyFloor(percentiles(ttft), percentiles(tpot.tolist()))


def run_trial(trial: tuple[Task, float]) -> Figures:
    """Simulate a task with its arrival times multiplied by a factor; 0 is all at once. Called in a process pool."""
    task, factor = trial
    scenario = scenario_of(CELLS[task.cell], task.profiles)
    record, _ = simulate(task.candidate, scenario, _jobs(task, factor))
    return figures_of(task.candidate.name, record)


def with_target(target: Target) -> Candidate:
    """Return `adaptive` with a latency target."""
    candidate = make_candidate("adaptive")
    update = {"ttft_target": target.ttft, "tpot_target": target.tpot}
    return replace(candidate, settings=candidate.settings.model_copy(update=update))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trace",
        type=Path,
        help=f"CSV file of lengths and arrival times; default: a {SYNTHETIC} trace",
    )
    parser.add_argument(
        "--profiles", type=Path, help="folder of measured tables; default: estimates"
    )
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["13B", "32B"])
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--sweep-requests", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the window")
    parser.add_argument("--loads", nargs="+", type=float, default=[0.5, 0.7, 0.9])
    parser.add_argument("--ttft", nargs="+", type=float, default=[1.0, 2.0], help="seconds")
    parser.add_argument("--tpot", nargs="+", type=float, default=[0.08, 0.1], help="seconds")
    parser.add_argument("--lengths", choices=get_args(Knowledge), default="classifier")
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Simulate, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "arrivals")
    targets = [Target()]
    targets += [Target(ttft=each) for each in args.ttft]
    targets += [Target(tpot=each) for each in args.tpot]
    targets += [Target(*each) for each in zip(args.ttft, args.tpot, strict=False)]
    print(file.heading)
    results: dict[str, dict[str, Figures]] = {}
    try:
        with ProcessPoolExecutor(cpu_cores()) as pool:
            for cell in args.cells:
                base = Task(
                    cell,
                    make_candidate("adaptive"),
                    args.requests,
                    args.seed,
                    args.lengths,
                    args.trace,
                    args.profiles,
                    None,
                )
                results |= _cell(pool, base, args.sweep_requests, args.loads, targets)
    except TDPipeError as error:
        sys.exit(str(error))
    file.write(results)


def _cell(
    pool: ProcessPoolExecutor,
    base: Task,
    sweep_requests: int,
    loads: Sequence[float],
    targets: Sequence[Target],
) -> dict[str, dict[str, Figures]]:
    """Print the results of one cell; return them by load, then by policy or target."""
    rows = trace_window(read_trace(base.trace, base.max_prompt_tokens), base.requests, base.seed)
    scenario = scenario_of(CELLS[base.cell], base.profiles)
    floor = latency_floor(scenario.pipeline, _jobs(base, 1.0))
    compared = candidates(tune(pool, replace(base, requests=sweep_requests)))
    capacity = run_trial((base, 0.0)).output_tokens_per_second
    trace_load = offered_rate(rows) / capacity
    print(f"### {scenario.name}\n")
    for line in scenario.assumptions:
        print(f"- {line}")
    print(
        f"- All at once, `adaptive` generates {capacity:.0f} output tokens/s; with its own arrival times the trace "
        f"requests {offered_rate(rows):.0f}, {trace_load:.0%} of that.\n"
        f"- A request that is alone in the pipeline has a TTFT of {_times(floor.ttft, 2)} s and a TPOT of "
        f"{_times(floor.tpot, 3)} s (50th / 90th / 99th percentile); no policy can improve that.\n"
    )
    paces = {"All requests at once": 0.0}
    for load in sorted({*loads, *([trace_load] if trace_load <= 1.0 else [])}):
        factor = trace_load / load
        paces[f"{load:.0%} of capacity: arrival times of the trace multiplied by {factor:.2f}"] = (
            factor
        )
    results = {}
    for title, factor in paces.items():
        print(f"{base.cell}: {title}", file=sys.stderr)
        trials = [(replace(base, candidate=each), factor) for each in compared]
        figures = list(pool.map(run_trial, trials))
        print(_policies_section(title, figures))
        kept = list(pool.map(run_trial, [(_under(base, each), factor) for each in targets]))
        print(_targets_section(title, targets, kept, floor), flush=True)
        results[f"{base.cell}, {title}"] = {each.policy: each for each in figures}
        results[f"{base.cell}, {title}, targets"] = _named(targets, kept)
    return results


def _under(base: Task, target: Target) -> Task:
    return replace(base, candidate=with_target(target))


def _named(targets: Sequence[Target], figures: Sequence[Figures]) -> dict[str, Figures]:
    return {str(target): each for target, each in zip(targets, figures, strict=True)}


def _jobs(task: Task, factor: float) -> list[Job]:
    rows = read_trace(task.trace, task.max_prompt_tokens)
    drawn = scale_arrivals(trace_window(rows, task.requests, task.seed), factor)
    return make_jobs(drawn, rows, task.knowledge, task.seed)


def _isolated_ttft(cost: CostModel, prompt: int) -> float:
    """Return the seconds until the first token of a prompt that is alone in the pipeline."""
    found = []
    for chunk in candidate_budgets(prompt).tolist():
        starts = np.arange(0, prompt, chunk, dtype=np.int32)
        counts = np.minimum(chunk, prompt - starts).astype(np.int32)
        reads = row_kv_reads(starts, counts, cost.chunk_tile)
        sampled = (starts + counts == prompt).astype(np.int32)
        ends = np.zeros(len(starts))
        for stage in cost.stages:
            ends = _ends(ends, stage.seconds(counts.astype(np.float64), reads, sampled))
        found.append(float(ends[-1]))
    return min(found)


def _ends(arrivals: FloatArray, seconds: FloatArray) -> FloatArray:
    """Return [chunks] end times of a stage, which starts a chunk when it has arrived and the previous one has ended."""
    before = np.cumsum(seconds) - seconds
    starts: FloatArray = before + np.maximum.accumulate(arrivals - before)
    return starts + seconds


def _policies_section(title: str, figures: Sequence[Figures]) -> str:
    lines = [
        f"**{title}**\n",
        "| policy | output tokens/s | TTFT s | TPOT ms | preempted |",
        "|---|---|---|---|---|",
    ]
    for each in figures:
        milliseconds = tuple(1e3 * time for time in each.tpot)
        lines.append(
            f"| {each.policy} | {each.output_tokens_per_second:.0f} | {_times(each.ttft, 2)} "
            f"| {_times(milliseconds, 0)} | {each.preemptions} |"
        )
    return "\n".join(lines) + "\n"


def _targets_section(
    title: str, targets: Sequence[Target], figures: Sequence[Figures], floor: LatencyFloor
) -> str:
    without_target = figures[0].output_tokens_per_second
    lines = [
        f"**{title}: `adaptive` with targets**\n",
        "| target | output tokens/s | loss | TTFT s | TPOT ms | met at the 90th | met at the 99th |",
        "|---|---|---|---|---|---|---|",
    ]
    for target, each in zip(targets, figures, strict=True):
        rate = each.output_tokens_per_second
        milliseconds = tuple(1e3 * time for time in each.tpot)
        verdicts = [_verdict(target, each, floor, index) for index in (1, 2)]
        lines.append(
            f"| {target} | {rate:.0f} | {1.0 - rate / without_target:.1%} | {_times(each.ttft, 2)} "
            f"| {_times(milliseconds, 0)} | {' | '.join(verdicts)} |"
        )
    return "\n".join(lines) + "\n"


def _verdict(target: Target, figures: Figures, floor: LatencyFloor, percentile: int) -> str:
    if target == Target():
        return ""
    if target.met(figures, percentile):
        return "yes"
    return "**no**" if target.reachable(floor, percentile) else "no, unreachable"


def _times(values: Sequence[float], digits: int) -> str:
    return " / ".join(f"{each:.{digits}f}" for each in values) or "none"


if __name__ == "__main__":
    main()
