"""Repeats the experiment of the TD-Pipe paper in simulation: all policies serve the same requests.

For each cell (a model on a node) a sweep on fewer requests finds the best token budget of each baseline. Then all
policies serve the whole trace with several seeds; baselines run both as engines ship them and tuned. The table compares
them with steady-state bounds. Nothing is measured on a GPU.

    python -m benchmarks.paper_work --trace LENGTHS.csv --profiles DIRECTORY --json RESULT.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from benchmarks.ablated_policies import AblatedCandidate, adaptive, by_arrival
from benchmarks.machine import cpu_cores
from benchmarks.request_mix import MAX_PROMPT_TOKENS
from benchmarks.results_file import add_json_option, open_results_file
from tdpipe.core.errors import TDPipeError
from tdpipe.simulation.bound import steady_bound
from tdpipe.simulation.candidate import Candidate, make_candidate, simulate
from tdpipe.simulation.figures import Figures, Part, figures_of
from tdpipe.simulation.hardware import parse_hardware
from tdpipe.simulation.known_models import find_model
from tdpipe.simulation.length_knowledge import Knowledge
from tdpipe.simulation.scenario import Scenario, make_scenario
from tdpipe.simulation.trace import SYNTHETIC, read_trace, sample
from tdpipe.simulation.workload import Job, make_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

_SWEPT = {
    "hybrid": (64, 96, 128, 192, 256, 384, 512, 1024),
    "throttled": (128, 256, 512, 1024, 2048),
    "separate": (256, 512, 1024, 2048, 4096),
    "tp-hybrid": (64, 128, 256, 512, 1024, 2048),
    "tp-separate": (512, 1024, 2048, 4096),
}
_SHIPPED = {
    "hybrid": (512, 2048),
    "throttled": (2048,),
    "separate": (2048,),
    "tp-hybrid": (512, 2048),
    "tp-separate": (2048,),
}
"""Default token budgets of engines."""
_OURS = ("adaptive", "temporal", "reference")
_BY_ARRIVAL = "adaptive, by arrival"
"""`adaptive` without the admission order that shortens the drain."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A model on a node."""

    hardware: str
    model: str
    profile: str | None = None
    """File in the folder of profiles with measured times of the whole model."""


CELLS = {
    "13B": Cell("4xL20", "llama-2-13b", "L20-Llama-13B.csv"),
    "32B": Cell("4xL20", "qwen2.5-32b", "L20-Qwen2.5-32B.csv"),
    "70B": Cell("4xA100-PCIe", "llama-2-70b"),
    "13B-2": Cell("2xL20", "llama-2-13b", "L20-Llama-13B.csv"),
    "13B-8": Cell("8xL20", "llama-2-13b", "L20-Llama-13B.csv"),
    "32B-2": Cell("2xL20", "qwen2.5-32b", "L20-Qwen2.5-32B.csv"),
    "32B-8": Cell("8xL20", "qwen2.5-32b", "L20-Qwen2.5-32B.csv"),
}


@dataclass(frozen=True, slots=True)
class Task:
    """One simulation."""

    cell: str
    candidate: Candidate
    requests: int
    seed: int
    knowledge: Knowledge
    trace: Path | None
    profiles: Path | None
    max_prompt_tokens: int | None = MAX_PROMPT_TOKENS
    """Requests with longer prompts are left out; None keeps all."""


def scenario_of(cell: Cell, profiles: Path | None) -> Scenario:
    """Return the scenario of a cell; without a folder of profiles its times are estimated."""
    stages, hardware = parse_hardware(cell.hardware)
    profile = profiles / cell.profile if profiles and cell.profile else None
    return make_scenario(hardware, find_model(cell.model), stages, profile=profile)


def jobs_of(task: Task) -> list[Job]:
    """Return the requests of a task."""
    rows = read_trace(task.trace, task.max_prompt_tokens)
    drawn = sample(rows, task.requests, task.seed, arrivals=False)
    return make_jobs(drawn, rows, task.knowledge, task.seed)


def run_task(task: Task) -> Figures:
    """Simulate one task; called in a process pool."""
    scenario = scenario_of(CELLS[task.cell], task.profiles)
    record, _ = simulate(task.candidate, scenario, jobs_of(task))
    return figures_of(task.candidate.name, record)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trace", type=Path, help=f"CSV file of lengths; default: a {SYNTHETIC} trace"
    )
    parser.add_argument(
        "--profiles", type=Path, help="folder of measured tables; default: estimates"
    )
    parser.add_argument(
        "--longest-prompt", type=int, default=MAX_PROMPT_TOKENS, help="leave out longer prompts"
    )
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument(
        "--sweep-requests",
        type=int,
        default=3_000,
        help="requests of a sweep; too few do not fill the KV cache",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lengths", choices=get_args(Knowledge), default="classifier")
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Simulate, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "paper_work")
    base = Task(
        "",
        make_candidate("adaptive"),
        0,
        0,
        args.lengths,
        args.trace,
        args.profiles,
        args.longest_prompt,
    )
    results = {}
    print(file.heading)
    try:
        with ProcessPoolExecutor(cpu_cores()) as pool:
            for cell in args.cells:
                print(f"{cell}: sweep", file=sys.stderr)
                tuned = tune(pool, replace(base, cell=cell, requests=args.sweep_requests))
                compared = candidates(tuned)
                tasks = [
                    replace(base, cell=cell, requests=args.requests, seed=seed, candidate=each)
                    for each in compared
                    for seed in range(args.seeds)
                ]
                print(f"{cell}: {len(tasks)} runs", file=sys.stderr)
                figures = list(pool.map(run_task, tasks))
                rows = [
                    figures[start : start + args.seeds]
                    for start in range(0, len(figures), args.seeds)
                ]
                results[cell] = {each.name: row for each, row in zip(compared, rows, strict=True)}
                print(_section(cell, results[cell], tuned, replace(tasks[0], seed=0)), flush=True)
    except TDPipeError as error:
        sys.exit(str(error))
    file.write(results)


def tune(pool: Executor, base: Task) -> dict[str, Candidate]:
    """Return each baseline with the budget that is fastest on the requests of the sweep."""
    tasks = [
        replace(base, candidate=make_candidate(name).with_budget(budget))
        for name, budgets in _SWEPT.items()
        for budget in budgets
    ]
    best: dict[str, tuple[float, Candidate]] = {}
    for task, figures in zip(tasks, pool.map(run_task, tasks), strict=True):
        name = task.candidate.name.split(" @")[0]
        rate = figures.output_tokens_per_second
        if name not in best or rate > best[name][0]:
            best[name] = (rate, task.candidate)
    return {name: candidate for name, (_, candidate) in best.items()}


def candidates(tuned: dict[str, Candidate]) -> list[Candidate]:
    """Return the policies of tdpipe, the baselines as engines ship them, and the tuned baselines."""
    untuned = [make_candidate(name) for name in _OURS]
    ordered = partial(adaptive, order=by_arrival)
    untuned.append(AblatedCandidate(_BY_ARRIVAL, untuned[0].settings, build=ordered))
    for name, budgets in _SHIPPED.items():
        untuned += [make_candidate(name).with_budget(budget) for budget in budgets]
    names = {each.name for each in untuned}
    return untuned + [each for each in tuned.values() if each.name not in names]


def _section(
    cell: str, results: dict[str, list[Figures]], tuned: dict[str, Candidate], task: Task
) -> str:
    scenario = scenario_of(CELLS[cell], task.profiles)
    mixing, pure = zip(
        *(_bounds(scenario, replace(task, seed=seed)) for seed in range(len(results["adaptive"]))),
        strict=True,
    )
    ours = statistics.median(each.output_tokens_per_second for each in results["adaptive"])
    best = {each.name for each in tuned.values()}
    lines = [
        f"### {scenario.name}\n",
        *(f"- {line}" for line in scenario.assumptions),
        (
            f"- Bound in steady state: {statistics.median(mixing):.0f} tokens/s with mixing, "
            f"{statistics.median(pure):.0f} without.\n"
        ),
        (
            "| policy | output tokens/s, median (min-max) | speedup of adaptive "
            "| steady tokens/s, share of the bound with mixing / without "
            "| ramp: s, tokens/s | drain: s, tokens/s | bubble % of the stages | switches | preempted | KV, steady |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in results.items():
        rates = [each.output_tokens_per_second for each in figures]
        rate = statistics.median(rates)
        rates_steady = [each.steady_tokens_per_second for each in figures]
        steady = statistics.median(rates_steady)
        shares = " / ".join(f"{_median_share(rates_steady, bound):.2f}" for bound in (mixing, pure))
        share = "" if name.startswith("tp-") else f", {shares}"
        middle = sorted(figures, key=lambda each: each.output_tokens_per_second)[len(figures) // 2]
        bubbles = " ".join(f"{each * 100:.0f}" for each in middle.bubble)
        mark = " (tuned)" if name in best else ""
        lines.append(
            f"| {name}{mark} | {rate:.0f} ({min(rates):.0f}-{max(rates):.0f}) | {ours / rate:.2f}x "
            f"| {steady:.0f}{share} | {_part(middle.ramp)} | {_part(middle.drain)} | {bubbles} "
            f"| {middle.phase_switches} | {middle.preemptions} | {middle.kv_mean:.0%} |"
        )
    return "\n".join(lines) + "\n"


def _bounds(scenario: Scenario, task: Task) -> tuple[float, float]:
    """Return the bounds of the task's requests with and without mixing, in output tokens per second."""
    room, jobs = scenario.pipeline_kv_tokens, jobs_of(task)
    mixing, pure = (
        steady_bound(scenario.pipeline, scenario.stages, room, jobs, mixing=each).tokens_per_second
        for each in (True, False)
    )
    return mixing, pure


def _median_share(rates: Sequence[float], bounds: Sequence[float]) -> float:
    """Return the median over the seeds of the rate as a share of its bound."""
    return statistics.median(rate / bound for rate, bound in zip(rates, bounds, strict=True))


def _part(part: Part) -> str:
    return f"{part.seconds:.0f}, {part.tokens_per_second:.0f}"


if __name__ == "__main__":
    main()
