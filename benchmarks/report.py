"""Summarises runs of several systems: medians, ratios to a baseline, and times of the stages."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems.run import RunResult, System

_HEADER = (
    "| system | output tokens/s, median (min-max) | ratio to {baseline}: of medians (per round) "
    "| stages: busy / bubble / idle % | preemptions | phase switches | same outputs "
    "| background load, cores |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Results of one system over all rounds."""

    system: System
    tokens_per_second: tuple[float, ...]
    """[rounds] output tokens per second."""
    ratio: float
    """Ratio of the median throughput to the baseline's."""
    round_ratios: tuple[float, ...]
    """[rounds] ratio of the throughput to the baseline's in the same round."""
    stage_shares: tuple[tuple[float, float, float], ...]
    """[stages] shares of busy, bubble and idle time; medians over the rounds."""
    preemptions: tuple[int, ...]
    phase_switches: tuple[int, ...]
    same_outputs: int
    """Number of requests whose tokens equal those of the baseline's first run in every round."""
    background_cores: tuple[float, ...]
    """[rounds] cores that unrelated processes kept busy."""


def summarise(
    runs: dict[System, list[RunResult]], baseline: System, requests: int
) -> tuple[Summary, ...]:
    """Return one summary per system.

    Args:
        runs: Runs of each system, by round.
        baseline: System whose throughput is the denominator of the ratios.
        requests: Number of requests in a run.
    """
    rates = {system: _rates(rounds) for system, rounds in runs.items()}
    reference = runs[baseline][0].outputs
    summaries = []
    for system, rounds in runs.items():
        same = [
            all(run.outputs[number] == reference[number] for run in rounds)
            for number in range(requests)
        ]
        pairs = zip(rates[system], rates[baseline], strict=True)
        summaries.append(
            Summary(
                system,
                rates[system],
                statistics.median(rates[system]) / statistics.median(rates[baseline]),
                tuple(own / other for own, other in pairs),
                _shares(rounds),
                tuple(run.preemptions for run in rounds if run.preemptions is not None),
                tuple(run.phase_switches for run in rounds if run.phase_switches is not None),
                sum(same),
                tuple(run.background_cores for run in rounds),
            )
        )
    return tuple(summaries)


def markdown_table(summaries: Sequence[Summary], baseline: System, requests: int) -> str:
    """Return a Markdown table with one row per system."""
    rows = [_HEADER.format(baseline=f"`{baseline.name}`")]
    for each in summaries:
        speeds = each.tokens_per_second
        stages = " · ".join(
            " / ".join(f"{share:.0%}".rstrip("%") for share in shares)
            for shares in each.stage_shares
        )
        cells = (
            f"`{each.system.name}`",
            f"{statistics.median(speeds):.0f} ({min(speeds):.0f}-{max(speeds):.0f})",
            f"{each.ratio:.2f} ({min(each.round_ratios):.2f}-{max(each.round_ratios):.2f})",
            stages or "not reported",
            _range(each.preemptions),
            _range(each.phase_switches),
            f"{each.same_outputs} of {requests}",
            f"{min(each.background_cores):.2f}-{max(each.background_cores):.2f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _rates(rounds: list[RunResult]) -> tuple[float, ...]:
    return tuple(sum(map(len, run.outputs)) / run.seconds for run in rounds)


def _shares(rounds: list[RunResult]) -> tuple[tuple[float, float, float], ...]:
    stages = range(len(rounds[0].stages))
    return tuple(
        (
            statistics.median(run.stages[stage].busy / run.seconds for run in rounds),
            statistics.median(run.stages[stage].bubble / run.seconds for run in rounds),
            statistics.median(run.stages[stage].idle / run.seconds for run in rounds),
        )
        for stage in stages
    )


def _range(counts: tuple[int, ...]) -> str:
    if not counts:
        return "not reported"
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"
