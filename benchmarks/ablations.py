"""Measures in simulation what each mechanism of a policy contributes.

Each row removes one mechanism or replaces it by a published one. All rows serve the same requests as the complete
policy, so losses are computed seed by seed. Nothing is measured on a GPU.

    python -m benchmarks.ablations --trace LENGTHS.csv --profiles DIRECTORY --json RESULT.json
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

from benchmarks.ablated_policies import (
    AblatedCandidate,
    a_free_block,
    adaptive,
    adaptive_at,
    adaptive_over_edges,
    as_they_come,
    by_arrival,
    by_count,
    by_count_and_arrival,
    free_now,
    free_share,
    off_edge,
    own_members,
    published_intensities,
    temporal,
    used_now,
)
from benchmarks.machine import cpu_cores
from benchmarks.paper_work import CELLS, Task, jobs_of, scenario_of
from benchmarks.results_file import add_json_option, open_results_file
from benchmarks.scheduler_cost import TARGET
from tdpipe.core.errors import TDPipeError
from tdpipe.core.lengths import LengthDistribution
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.policies.tail import admission_order
from tdpipe.simulation.candidate import make_candidate, simulate
from tdpipe.simulation.figures import Figures, figures_of
from tdpipe.simulation.length_knowledge import Knowledge
from tdpipe.simulation.trace import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from tdpipe.core.settings import SchedulerSettings
    from tdpipe.scheduling.policy import Policy
    from tdpipe.simulation.stage_timeline import ControlOnStage
    from tdpipe.simulation.workload import Job

    _Lengths = Knowledge | Literal["max_tokens"]

_PUBLISHED_CONTROL = replace(TARGET, token=3 * 2.6e-3 / (128 * 500))
"""TD-Pipe's public code pickles whole sequences for three workers: 2.6 ms for 128 sequences of 500 tokens, measured."""
_WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Ablation:
    """A policy in which one mechanism is removed or replaced."""

    policy: str
    mechanism: str
    replacement: str = ""
    build: Callable[[SchedulerSettings], Policy] = make_policy
    lengths: _Lengths | None = None
    """What the policy knows about output lengths; None is the same as for the complete policy."""
    control: ControlOnStage | None = None

    @property
    def name(self) -> str:
        """Name of the row."""
        return ": ".join(part for part in (self.policy, self.mechanism, self.replacement) if part)


def _of_both(policy: str, build: Callable[..., Policy]) -> tuple[Ablation, ...]:
    """Return the ablations of mechanisms that both policies have; `build` takes a `decode_batch`."""

    def batches(mechanism: str, replacement: str, decode_batch: object) -> Ablation:
        return Ablation(policy, mechanism, replacement, partial(build, decode_batch=decode_batch))

    apart, predictor, stealing = "control apart from stage 0", "predictor", "stealing by time"
    return (
        Ablation(policy, _WHOLE),
        Ablation(policy, apart, "scheduling on stage 0", control=TARGET),
        Ablation(policy, apart, "and whole sequences pickled", control=_PUBLISHED_CONTROL),
        Ablation(policy, predictor, "oracle (a gain)", lengths="oracle"),
        Ablation(policy, predictor, "mean of lengths", lengths="mean"),
        Ablation(policy, predictor, "max_tokens only", lengths="max_tokens"),
        batches(stealing, "by count", by_count),
        batches(stealing, "by count and arrival (published)", by_count_and_arrival),
        batches(stealing, "none, batches keep their members", own_members),
        batches("equal times", "all that is ready", as_they_come),
    )


ABLATIONS = (
    *_of_both("adaptive", adaptive),
    Ablation("adaptive", "tile edges", "budgets 8 over a multiple of 128", adaptive_over_edges),
    Ablation("adaptive", "choice of the budget", "512 tokens", partial(adaptive_at, 512)),
    Ablation("adaptive", "choice of the budget", "2,048 tokens", partial(adaptive_at, 2_048)),
    Ablation("adaptive", "order of the tail", "arrival", partial(adaptive, order=by_arrival)),
    Ablation(
        "adaptive", "outlook", "KV that is free when asked", partial(adaptive, outlook=free_now)
    ),
    Ablation("adaptive", "reserve", "any free block", partial(adaptive, has_reserve=a_free_block)),
    Ablation(
        "adaptive",
        "outlook and reserve",
        "any free block",
        partial(adaptive, outlook=free_now, has_reserve=a_free_block),
    ),
    *_of_both("temporal", temporal),
    Ablation("temporal", "forecast margin", "0", partial(temporal, margin=0.0)),
    Ablation("temporal", "forecast", "KV in use is 100%", partial(temporal, peaks=used_now)),
    Ablation(
        "temporal",
        "forecast",
        "KV in use is 80%",
        partial(temporal, peaks=partial(used_now, share=0.8)),
    ),
    *(
        Ablation(
            "temporal",
            "switch rule",
            f"{share:.0%} of KV is free",
            partial(temporal, switch=partial(free_share, share=share)),
        )
        for share in (0.05, 0.1, 0.2, 0.4)
    ),
    Ablation(
        "temporal",
        "switch rule",
        "intensities (published)",
        partial(temporal, switch=published_intensities),
    ),
    Ablation(
        "temporal", "tile edges", "decode off the edge", partial(temporal, decode_batch=off_edge)
    ),
    Ablation(
        "temporal",
        "order of arrival",
        "adaptive's order of the tail",
        partial(temporal, order=admission_order),
    ),
)


def run_ablation(ablation: Ablation, task: Task) -> Figures:
    """Simulate one row; called in a process pool."""
    jobs = _jobs(task, ablation.lengths or task.knowledge)
    scenario = replace(scenario_of(CELLS[task.cell], task.profiles), control=ablation.control)
    settings = make_candidate(ablation.policy).settings
    candidate = AblatedCandidate(ablation.policy, settings, build=ablation.build)
    record, _ = simulate(candidate, scenario, jobs)
    return figures_of(ablation.name, record)


def _jobs(task: Task, lengths: _Lengths) -> list[Job]:
    if lengths != "max_tokens":
        return jobs_of(replace(task, knowledge=lengths))
    return [replace(job, lengths=LengthDistribution((job.max_tokens,))) for job in jobs_of(task)]


@dataclass(frozen=True, slots=True)
class Row:
    """Effect of an ablation over the seeds."""

    ablation: Ablation
    rates: tuple[float, ...]
    """[seeds] output tokens per second."""
    losses: tuple[float, ...]
    """[seeds] loss as a share of the complete policy's throughput; negative where the ablation is faster."""
    bubble: float
    """Mean bubble share of the stages; median over the seeds."""
    switches: int
    preemptions: int
    kv_mean: float
    """Mean utilisation of the KV cache in steady state."""
    kv_peak: float
    """Peak utilisation of the KV cache."""


def rows_of(ablations: tuple[Ablation, ...], figures: list[list[Figures]]) -> list[Row]:
    """Return one row per ablation.

    Args:
        ablations: Ablations, among them the complete policies.
        figures: Figures of each ablation, by seed.
    """
    whole = {
        each.policy: runs
        for each, runs in zip(ablations, figures, strict=True)
        if each.mechanism == _WHOLE
    }
    return [
        Row(
            each,
            tuple(run.output_tokens_per_second for run in runs),
            tuple(
                1.0 - run.output_tokens_per_second / base.output_tokens_per_second
                for run, base in zip(runs, whole[each.policy], strict=True)
            ),
            statistics.median(statistics.mean(run.bubble) for run in runs),
            int(statistics.median(run.phase_switches for run in runs)),
            int(statistics.median(run.preemptions for run in runs)),
            statistics.median(run.kv_mean for run in runs),
            max(run.kv_peak for run in runs),
        )
        for each, runs in zip(ablations, figures, strict=True)
    ]


def table_of(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        (
            "| policy | without | in its place | output tokens/s | loss %, median (min-max) "
            "| bubbles % | switches | preempted | KV steady / peak % |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = row.ablation
        whole = each.mechanism == _WHOLE
        low, high = min(row.losses), max(row.losses)
        lost = f"{statistics.median(row.losses):.1%} ({low:.1%} to {high:.1%})".replace("%", "")
        cells = (
            f"`{each.policy}`",
            "nothing" if whole else each.mechanism,
            each.replacement,
            f"{statistics.median(row.rates):.0f}",
            "" if whole else lost,
            f"{row.bubble * 100:.0f}",
            str(row.switches),
            str(row.preemptions),
            f"{row.kv_mean * 100:.0f} / {row.kv_peak * 100:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
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
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lengths", choices=get_args(Knowledge), default="classifier")
    parser.add_argument("--processes", type=int, default=cpu_cores())
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Simulate, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "ablations")
    candidate = make_candidate("adaptive")
    base = Task("", candidate, args.requests, 0, args.lengths, args.trace, args.profiles)
    results = {}
    print(file.heading)
    try:
        with ProcessPoolExecutor(args.processes) as pool:
            for cell in args.cells:
                tasks = [replace(base, cell=cell, seed=seed) for seed in range(args.seeds)]
                each = [(ablation, task) for ablation in ABLATIONS for task in tasks]
                print(f"{cell}: {len(each)} runs", file=sys.stderr)
                figures = list(pool.map(run_ablation, *zip(*each, strict=True)))
                runs = [
                    figures[start : start + args.seeds]
                    for start in range(0, len(figures), args.seeds)
                ]
                results[cell] = figures
                print(f"### {scenario_of(CELLS[cell], args.profiles).name}\n")
                print(table_of(rows_of(ABLATIONS, runs)), flush=True)
    except TDPipeError as error:
        sys.exit(str(error))
    file.write(results)


if __name__ == "__main__":
    main()
