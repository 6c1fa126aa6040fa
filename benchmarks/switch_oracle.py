"""Compares the switch rule of `temporal` with an oracle that searches for the best switch points of the same requests.

The oracle simulates the whole run for each set of switch points. It first tries every threshold of free KV and of KV
utilisation, then changes single points of the best threshold and of the policy's own run. Its result is a lower limit
of what the best switch points achieve.

    python -m benchmarks.switch_oracle --trace LENGTHS.csv --profiles DIRECTORY --json RESULT.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, get_args

from benchmarks.ablated_policies import AblatedCandidate, free_share, temporal
from benchmarks.machine import cpu_cores
from benchmarks.paper_work import CELLS, Task, jobs_of, scenario_of
from benchmarks.results_file import add_json_option, open_results_file
from benchmarks.switch_points import Points, Recording, Replay, hill_climb
from tdpipe.core.errors import TDPipeError
from tdpipe.simulation.candidate import make_candidate, simulate
from tdpipe.simulation.length_knowledge import Knowledge
from tdpipe.simulation.trace import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.step import FloatArray
    from tdpipe.scheduling.forecast import Demands
    from tdpipe.scheduling.policies.temporal import TemporalPolicy
    from tdpipe.scheduling.policy import Policy

_SHARES = (0.01, 0.03, 0.06, 0.1, 0.15, 0.22, 0.32, 0.45)
"""Shares of the KV cache that are free when a decode phase ends."""
_FILLS = (0.95, 1.0, 1.05)
"""Shares of the KV cache that the forecast may reach."""


@dataclass(frozen=True, slots=True)
class Search:
    """Result of one search. Rates are in output tokens per second."""

    cell: str
    lengths: str
    seed: int
    ours: float
    our_switches: int
    threshold: float
    """Rate of the best fixed threshold."""
    share: float
    """Share of free KV of the best threshold."""
    fill: float
    """Share of the KV cache that the forecast may reach at the best threshold."""
    found: float
    """Best rate of all switch points that were tried."""
    found_switches: int
    evaluations: int

    @property
    def ratio(self) -> float:
        """Rate of the policy as a share of the best rate found."""
        return self.ours / self.found


def _filled(demands: Demands, fill: float, margin: float) -> FloatArray:
    """Return [n] blocks that the forecast needs if it may reach a share `fill` of the cache."""
    peaks: FloatArray = demands.peaks(margin) / fill
    return peaks


def search(task: Task, evaluations: int) -> Search:
    """Search for the best switch points of a task's requests."""
    scenario = scenario_of(CELLS[task.cell], task.profiles)
    jobs = jobs_of(task)
    settings = task.candidate.settings

    def rate(policy: Policy) -> float:
        candidate = AblatedCandidate(task.candidate.name, settings, build=lambda _: policy)
        return simulate(candidate, scenario, jobs)[0].output_tokens_per_second

    def recorded(policy: TemporalPolicy) -> tuple[float, Points]:
        recording = Recording(policy, len(jobs))
        return rate(recording), recording.points

    def filling(fill: float) -> Callable[[Demands], FloatArray]:
        return partial(_filled, fill=fill, margin=settings.forecast_margin)

    def climbed(start: Points, peaks: Callable[[Demands], FloatArray]) -> tuple[float, int]:
        def replayed(tried: Points) -> float:
            return rate(Replay(settings, tried, len(jobs), peaks))

        found, highest = hill_climb(start, replayed, len(jobs), evaluations // 2, Random(task.seed))
        return highest, len(found)

    ours, our_points = recorded(temporal(settings))
    threshold, points, share, fill = max(
        (
            *recorded(
                temporal(settings, switch=partial(free_share, share=share), peaks=filling(fill))
            ),
            share,
            fill,
        )
        for share in _SHARES
        for fill in _FILLS
    )
    best = (ours, len(our_points)) if ours > threshold else (threshold, len(points))
    for start, peaks in ((our_points, filling(1.0)), (points, filling(fill))):
        best = max(best, climbed(start, peaks))
    tried = 1 + len(_SHARES) * len(_FILLS) + 2 * (1 + evaluations // 2)
    return Search(
        task.cell,
        task.knowledge,
        task.seed,
        ours,
        len(our_points),
        threshold,
        share,
        fill,
        *best,
        tried,
    )


def table_of(searches: list[Search]) -> str:
    """Return a Markdown table with medians over the seeds of each cell and knowledge of lengths."""
    lines = [
        (
            "| cell | lengths known from | temporal, tokens/s (switches) | best threshold (KV free, filled to) "
            "| best found (switches) | temporal / best found, median (min) |"
        ),
        "|---|---|---|---|---|---|",
    ]
    kinds = dict.fromkeys((each.cell, each.lengths) for each in searches)
    for cell, lengths in kinds:
        group = [each for each in searches if (each.cell, each.lengths) == (cell, lengths)]
        middle = sorted(group, key=lambda each: each.ratio)[(len(group) - 1) // 2]
        ratios = [each.ratio for each in group]
        lines.append(
            f"| {cell} | {lengths} | {middle.ours:.0f} ({middle.our_switches}) "
            f"| {middle.threshold:.0f} ({middle.share:.0%}, {middle.fill:.0%}) "
            f"| {middle.found:.0f} ({middle.found_switches}) "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.3f}) |"
        )
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["13B"])
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--lengths",
        nargs="+",
        choices=get_args(Knowledge),
        default=["oracle", "classifier"],
        help="what the scheduler knows about lengths; the oracle of switch points always knows the throughput",
    )
    parser.add_argument(
        "--evaluations", type=int, default=160, help="number of simulations of changed points"
    )
    parser.add_argument("--processes", type=int, default=cpu_cores())
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Search, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "switch_oracle")
    candidate = make_candidate("temporal")
    tasks = [
        Task(cell, candidate, args.requests, seed, lengths, args.trace, args.profiles)
        for cell in args.cells
        for lengths in args.lengths
        for seed in range(args.seeds)
    ]
    print(file.heading)
    try:
        with ProcessPoolExecutor(args.processes) as pool:
            searches = []
            for each in pool.map(search, tasks, [args.evaluations] * len(tasks)):
                searches.append(each)
                print(f"{len(searches)} of {len(tasks)}: {each.ratio:.3f}", file=sys.stderr)
    except TDPipeError as error:
        sys.exit(str(error))
    print(table_of(searches))
    file.write(searches)


if __name__ == "__main__":
    main()
