"""What users wait for when requests arrive over time, and what latency targets cost.

A stretch of a trace keeps its bursts; its clock is scaled so that the offered load is a share of what the cell makes of
the same requests at once. All policies serve it, then `adaptive` with targets for the first token (TTFT) and for each
further one (TPOT). A target is met when the 99th percentile is within it. In simulation; nothing is measured on a GPU.

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

from benchmarks.figures_file import add_json_option, open_figures
from benchmarks.machine import cpu_cores
from benchmarks.paper_work import CELLS, Task, candidates, scenario_of, tune
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
    """Bounds on waiting, in seconds; None is no bound."""

    ttft: float | None = None
    tpot: float | None = None

    def met(self, figures: Figures, percentile: int) -> bool:
        """Whether a run kept it, at an index of the figures' percentiles."""
        return self._within((figures.ttft, figures.tpot), percentile)

    def kept_by(self, floor: Floor, percentile: int) -> bool:
        """Whether requests that are each alone would keep it."""
        return self._within((floor.ttft, floor.tpot), percentile)

    def _within(self, times: tuple[tuple[float, ...], ...], percentile: int) -> bool:
        # Where no request has a second token there is no time per token, and nothing is too long.
        pairs = zip(times, (self.ttft, self.tpot), strict=True)
        return all(bound is None or not each or each[percentile] <= bound for each, bound in pairs)

    def __str__(self) -> str:
        parts = (("TTFT", self.ttft), ("TPOT", self.tpot))
        return ", ".join(f"{name} {bound:g} s" for name, bound in parts if bound) or "none"


@dataclass(frozen=True, slots=True)
class Floor:
    """What no scheduler gets under, in seconds: 50th, 90th and 99th percentile over requests that are each alone."""

    ttft: tuple[float, ...]
    tpot: tuple[float, ...]


def stretch_of(rows: list[TraceRow], count: int, seed: int) -> list[TraceRow]:
    """`count` rows with their times; a trace without times gets those of a Poisson process of one a second."""
    if any(row.arrival for row in rows):
        return sample(rows, count, seed, arrivals=True)
    drawn = sample(rows, count, seed, arrivals=False)
    gaps = np.random.default_rng(seed).exponential(size=count)
    return [
        replace(row, arrival=float(time))
        for row, time in zip(drawn, np.cumsum(gaps) - gaps[0], strict=True)
    ]


def offered_rate(rows: Sequence[TraceRow]) -> float:
    """Output tokens/s that the rows ask for."""
    return sum(row.output_tokens for row in rows) / max(row.arrival for row in rows)


def slowed(rows: Sequence[TraceRow], factor: float) -> list[TraceRow]:
    """The same rows with all times multiplied."""
    return [replace(row, arrival=row.arrival * factor) for row in rows]


def floor_of(cost: CostModel, jobs: Sequence[Job]) -> Floor:
    """The waits of each job in an idle pipeline; its prompt is cut as is best for it."""
    alone = {prompt: _alone(cost, prompt) for prompt in {job.prompt_tokens for job in jobs}}
    ttft = [alone[job.prompt_tokens] for job in jobs]
    several = [job for job in jobs if job.output_tokens > 1]
    context = np.array([job.prompt_tokens + job.output_tokens / 2 for job in several])
    row = np.ones_like(context)
    tpot = np.sum([stage.seconds(row, context, row) for stage in cost.stages], axis=0)
    return Floor(percentiles(ttft), percentiles(tpot.tolist()))


def run_trial(trial: tuple[Task, float]) -> Figures:
    """A task's candidate on its stretch with times multiplied by a factor; 0 is all at once. For a process pool."""
    task, factor = trial
    scenario = scenario_of(CELLS[task.cell], task.profiles)
    record, _ = simulate(task.candidate, scenario, _jobs(task, factor))
    return figures_of(task.candidate.name, record)


def guarded(target: Target) -> Candidate:
    """`adaptive` with targets."""
    candidate = make_candidate("adaptive")
    update = {"ttft_target": target.ttft, "tpot_target": target.tpot}
    return replace(candidate, settings=candidate.settings.model_copy(update=update))


def parse_arguments() -> argparse.Namespace:
    """What to simulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trace", type=Path, help=f"CSV of lengths and times, else a {SYNTHETIC} mix"
    )
    parser.add_argument("--profiles", type=Path, help="folder of measured tables, else estimates")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["13B", "32B"])
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--sweep-requests", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0, help="of the stretch")
    parser.add_argument("--loads", nargs="+", type=float, default=[0.5, 0.7, 0.9])
    parser.add_argument("--ttft", nargs="+", type=float, default=[1.0, 2.0], help="seconds")
    parser.add_argument("--tpot", nargs="+", type=float, default=[0.08, 0.1], help="seconds")
    parser.add_argument("--lengths", choices=get_args(Knowledge), default="classifier")
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Simulate, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_figures(args.json, "arrivals")
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
    """All of one cell, printed as it is found: by load, by policy or target."""
    rows = stretch_of(read_trace(base.trace, base.longest_prompt), base.requests, base.seed)
    scenario = scenario_of(CELLS[base.cell], base.profiles)
    floor = floor_of(scenario.pipeline, _jobs(base, 1.0))
    compared = candidates(tune(pool, replace(base, requests=sweep_requests)))
    capacity = run_trial((base, 0.0)).output_tokens_per_second
    own = offered_rate(rows) / capacity
    print(f"### {scenario.name}\n")
    for line in scenario.assumptions:
        print(f"- {line}")
    print(
        f"- All at once, `adaptive` makes {capacity:.0f} output tokens/s; at its own pace the trace asks for "
        f"{offered_rate(rows):.0f}, {own:.0%} of that.\n"
        f"- Alone in the pipeline a request has a TTFT of {_times(floor.ttft, 2)} s and a TPOT of "
        f"{_times(floor.tpot, 3)} s (50th / 90th / 99th percentile): no policy gets under that.\n"
    )
    paces = {"All requests at once": 0.0}
    for load in sorted({*loads, *([own] if own <= 1.0 else [])}):
        factor = own / load
        paces[f"{load:.0%} of capacity: the trace's times multiplied by {factor:.2f}"] = factor
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
    return replace(base, candidate=guarded(target))


def _named(targets: Sequence[Target], figures: Sequence[Figures]) -> dict[str, Figures]:
    return {str(target): each for target, each in zip(targets, figures, strict=True)}


def _jobs(task: Task, factor: float) -> list[Job]:
    rows = read_trace(task.trace, task.longest_prompt)
    drawn = slowed(stretch_of(rows, task.requests, task.seed), factor)
    return make_jobs(drawn, rows, task.knowledge, task.seed)


def _alone(cost: CostModel, prompt: int) -> float:
    """Seconds until the first token of a prompt that has the pipeline for itself."""
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
    """[chunks] when a stage ends each: it begins when the chunk is there and the one before has ended."""
    before = np.cumsum(seconds) - seconds
    begins: FloatArray = before + np.maximum.accumulate(arrivals - before)
    return begins + seconds


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
    title: str, targets: Sequence[Target], figures: Sequence[Figures], floor: Floor
) -> str:
    free = figures[0].output_tokens_per_second
    lines = [
        f"**{title}: `adaptive` with targets**\n",
        "| targets | output tokens/s | lost | TTFT s | TPOT ms | 90th within | 99th within |",
        "|---|---|---|---|---|---|---|",
    ]
    for target, each in zip(targets, figures, strict=True):
        rate = each.output_tokens_per_second
        milliseconds = tuple(1e3 * time for time in each.tpot)
        verdicts = [_verdict(target, each, floor, index) for index in (1, 2)]
        lines.append(
            f"| {target} | {rate:.0f} | {1.0 - rate / free:.1%} | {_times(each.ttft, 2)} "
            f"| {_times(milliseconds, 0)} | {' | '.join(verdicts)} |"
        )
    return "\n".join(lines) + "\n"


def _verdict(target: Target, figures: Figures, floor: Floor, percentile: int) -> str:
    if target == Target():
        return ""
    if target.met(figures, percentile):
        return "yes"
    return "**no**" if target.kept_by(floor, percentile) else "no, nor alone"


def _times(values: Sequence[float], digits: int) -> str:
    return " / ".join(f"{each:.{digits}f}" for each in values) or "none"


if __name__ == "__main__":
    main()
