"""Measures the cost of the control plane: the real engine over paced stages, compared with the simulator.

Engine, scheduler, Ray actors and messages are real; a stage waits for the time that its GPU would need. Each run is in
a fresh process and is compared with two simulations of the same requests up to the same number of output tokens: one
without control-plane cost, one with the simulator's latencies. The table has medians over the runs.

    python -m benchmarks.paced_engine --trace LENGTHS.csv --profiles DIRECTORY --json RESULT.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.paper_work import CELLS, Task, jobs_of, scenario_of
from benchmarks.results_file import add_json_option, open_results_file
from benchmarks.systems.background_load import BackgroundLoad
from benchmarks.systems.process import call_in_process
from tdpipe.core.errors import TDPipeError
from tdpipe.measurement.paced_run import PacedComparison, PacedPlan, compare_paced
from tdpipe.simulation.candidate import POLICY_NAMES, make_candidate
from tdpipe.simulation.trace import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Sequence

_REQUESTS = 3_000
"""Number of requests, which is more than are served until the window ends."""
_HEADER = (
    "| cell | policy | running | paced tokens/s (min-max) | control-plane loss, median (per run) "
    "| against the simulator | stage busy %, paced / simulated | engine, of which scheduler (% of a core) "
    "| whole controller | background load, cores |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Load:
    """Settings of one row of the table."""

    cell: str
    policy: str
    budget: int
    running: int
    """Maximum number of requests that hold KV at once; a full KV cache allows fewer."""
    seconds: float
    ramp: float
    trace: Path | None
    profiles: Path | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Measurements of one run."""

    compared: PacedComparison
    background_cores: float
    """Cores that unrelated processes kept busy during the run."""


def measure(load: Load, seed: int) -> Outcome:
    """Measure one run; called in a fresh process.

    Raises:
        TDPipeError: the engine does not start, or it fails.
    """
    scenario = scenario_of(CELLS[load.cell], load.profiles)
    candidate = make_candidate(load.policy).with_budget(load.budget)
    task = Task(load.cell, candidate, _REQUESTS, seed, "classifier", load.trace, load.profiles)
    settings = candidate.settings.model_copy(update={"max_running": load.running})
    plan = PacedPlan(
        scenario.pipeline, scenario.pipeline_kv_tokens, scenario.latencies, settings, jobs_of(task)
    )
    background = BackgroundLoad()
    compared = compare_paced(plan, _print_progress, ramp=load.ramp, seconds=load.seconds)
    return Outcome(compared, background.cores())


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
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["32B"])
    parser.add_argument(
        "--policies", nargs="+", choices=POLICY_NAMES, default=["adaptive", "temporal"]
    )
    parser.add_argument("--budget", type=int, default=256, help="token budget of the policies")
    parser.add_argument(
        "--running", type=int, default=400, help="maximum number of requests that hold KV"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="duration of the steady state")
    parser.add_argument("--ramp", type=float, default=30.0, help="seconds before the steady state")
    parser.add_argument("--runs", type=int, default=3)
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "paced_engine")
    print(file.heading)
    results: list[tuple[Load, list[Outcome]]] = []
    try:
        for cell in args.cells:
            for policy in args.policies:
                load = Load(
                    cell,
                    policy,
                    args.budget,
                    args.running,
                    args.seconds,
                    args.ramp,
                    args.trace,
                    args.profiles,
                )
                runs = [call_in_process(measure, load, seed) for seed in range(args.runs)]
                results.append((load, runs))
    except TDPipeError as error:
        sys.exit(str(error))
    print(_HEADER)
    for load, outcomes in results:
        print(_row(load, outcomes))
    file.write([outcomes for _, outcomes in results])


def _row(load: Load, outcomes: Sequence[Outcome]) -> str:
    runs = [each.compared for each in outcomes]
    speeds = [each.paced.window.tokens_per_second for each in runs]
    middle = sorted(runs, key=lambda each: each.loss)[len(runs) // 2]
    busy = " · ".join(
        f"{paced.busy * 100:.1f} / {simulated.busy * 100:.1f}"
        for paced, simulated in zip(
            middle.paced.window.stages, middle.simulated.stages, strict=True
        )
    )
    engine, scheduler, controller = (
        statistics.median(getattr(each.paced, name) for each in runs)
        for name in ("engine_share", "scheduler_share", "controller_share")
    )
    background = [each.background_cores for each in outcomes]
    cells = (
        f"{CELLS[load.cell].model}, {CELLS[load.cell].hardware}",
        f"{load.policy} @{load.budget}",
        f"{statistics.median(each.paced.running for each in runs):.0f}",
        f"{statistics.median(speeds):.0f} ({min(speeds):.0f}-{max(speeds):.0f})",
        f"{middle.loss:+.2%} ({', '.join(f'{each.loss:+.2%}' for each in runs)})",
        f"{statistics.median(each.deviation for each in runs):+.2%}",
        busy,
        f"{engine * 100:.1f}, {scheduler * 100:.1f}",
        f"{controller * 100:.1f}",
        f"{min(background):.2f}-{max(background):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _print_progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
