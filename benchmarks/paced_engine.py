"""What the control plane costs: the real engine over paced stages of four L20s, beside the simulator.

Engine, scheduler, Ray actors and messages are real; a stage waits as long as its GPU would compute. Each run is in a
fresh process and is compared with simulations of the same requests over the same output tokens, at no control cost and
with the simulator's own latencies. Medians over the runs.

    python -m benchmarks.paced_engine --trace LENGTHS.csv --profiles DIRECTORY --json RESULT.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.machine import describe_machine
from benchmarks.request_mix import LONGEST_PROMPT
from benchmarks.systems.foreign_load import ForeignLoad
from benchmarks.systems.process import call_in_process
from tdpipe.controller.paced_run import PacedComparison, PacedPlan, compare_paced
from tdpipe.core.errors import TDPipeError
from tdpipe.simulation.contestant import NAMES, make_contestant
from tdpipe.simulation.hardware import parse_hardware
from tdpipe.simulation.model_shape import find_shape
from tdpipe.simulation.scenario import make_scenario
from tdpipe.simulation.trace import SYNTHETIC, read_trace, sample, synthetic_trace
from tdpipe.simulation.workload import make_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROFILES = {"llama-2-13b": "L20-Llama-13B.csv", "qwen2.5-32b": "L20-Qwen2.5-32B.csv"}
_REQUESTS = 3_000
"""More than are served until the window ends."""
_HEADER = (
    "| model | policy | running | paced tokens/s (min-max) | control-plane loss, median (per run) "
    "| against the simulator | stage busy %, paced / simulated | engine, of which scheduler (% of a core) "
    "| whole controller | cores taken by others |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one row of the table measures."""

    model: str
    policy: str
    budget: int
    running: int
    """Requests that may hold KV at once; fewer do where the KV cache is full."""
    seconds: float
    ramp: float
    trace: Path | None
    profiles: Path | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a cell."""

    compared: PacedComparison
    foreign_cores: float
    """Cores that processes of others kept busy meanwhile."""


def measure(cell: Cell, seed: int) -> Outcome:
    """One run, for a process of its own.

    Raises:
        TDPipeError: the engine does not start, or fails.
    """
    stages, hardware = parse_hardware("4xL20")
    profile = cell.profiles / _PROFILES[cell.model] if cell.profiles else None
    scenario = make_scenario(hardware, find_shape(cell.model), stages, profile=profile)
    rows = read_trace(cell.trace, LONGEST_PROMPT) if cell.trace else synthetic_trace()
    jobs = make_jobs(sample(rows, _REQUESTS, seed, arrivals=False), rows, "classifier", seed)
    settings = make_contestant(cell.policy).settings.model_copy(
        update={"max_running": cell.running, "token_budget": cell.budget}
    )
    plan = PacedPlan(
        scenario.pipeline, scenario.pipeline_kv_tokens, scenario.latencies, settings, jobs
    )
    load = ForeignLoad()
    compared = compare_paced(plan, _tell, ramp=cell.ramp, seconds=cell.seconds)
    return Outcome(compared, load.cores())


def parse_arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help=f"CSV of lengths, else a {SYNTHETIC} mix")
    parser.add_argument("--profiles", type=Path, help="folder of measured tables, else estimates")
    parser.add_argument("--models", nargs="+", choices=_PROFILES, default=["qwen2.5-32b"])
    parser.add_argument("--policies", nargs="+", choices=NAMES, default=["adaptive", "temporal"])
    parser.add_argument("--budget", type=int, default=256, help="token budget of the policies")
    parser.add_argument("--running", type=int, default=400, help="requests that hold KV, at most")
    parser.add_argument("--seconds", type=float, default=120.0, help="of steady state")
    parser.add_argument("--ramp", type=float, default=30.0, help="seconds before it")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    return parser.parse_args()


def main() -> None:
    """Measure, and print a section for `docs/benchmarks.md`."""
    args = parse_arguments()
    machine = describe_machine()
    print(f"Machine: {machine}.\n")
    results: list[tuple[Cell, list[Outcome]]] = []
    try:
        for model in args.models:
            for policy in args.policies:
                cell = Cell(
                    model,
                    policy,
                    args.budget,
                    args.running,
                    args.seconds,
                    args.ramp,
                    args.trace,
                    args.profiles,
                )
                runs = [call_in_process(measure, cell, seed) for seed in range(args.runs)]
                results.append((cell, runs))
    except TDPipeError as error:
        sys.exit(str(error))
    print(_HEADER)
    for cell, outcomes in results:
        print(_row(cell, outcomes))
    if args.json:
        args.json.write_bytes(
            msgspec.json.format(msgspec.json.encode([outcomes for _, outcomes in results]))
        )


def _row(cell: Cell, outcomes: Sequence[Outcome]) -> str:
    runs = [each.compared for each in outcomes]
    speeds = [each.paced.window.tokens_per_second for each in runs]
    middle = sorted(runs, key=lambda each: each.loss)[len(runs) // 2]
    busy = " · ".join(
        f"{real.busy * 100:.1f} / {ideal.busy * 100:.1f}"
        for real, ideal in zip(middle.paced.window.stages, middle.simulated.stages, strict=True)
    )
    engine, scheduler, controller = (
        statistics.median(getattr(each.paced, name) for each in runs)
        for name in ("engine_share", "scheduler_share", "controller_share")
    )
    foreign = [each.foreign_cores for each in outcomes]
    cells = (
        cell.model,
        f"{cell.policy} @{cell.budget}",
        f"{statistics.median(each.paced.running for each in runs):.0f}",
        f"{statistics.median(speeds):.0f} ({min(speeds):.0f}-{max(speeds):.0f})",
        f"{middle.loss:+.2%} ({', '.join(f'{each.loss:+.2%}' for each in runs)})",
        f"{statistics.median(each.deviation for each in runs):+.2%}",
        busy,
        f"{engine * 100:.1f}, {scheduler * 100:.1f}",
        f"{controller * 100:.1f}",
        f"{min(foreign):.2f}-{max(foreign):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _tell(line: str) -> None:
    print(f"  {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
