"""What runs of several systems, taken in turns, say: medians, ratios, and where stages waited."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems.job import Run, System

_HEADER = (
    "| system | output tokens/s, median (min-max) | to {baseline}: of medians (per round) "
    "| stages: busy / bubble / idle % | preemptions | phase switches | same outputs "
    "| cores taken by others |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Summary:
    """One system over all rounds."""

    system: System
    tokens_per_second: tuple[float, ...]
    """Output tokens, by round."""
    ratio: float
    """Of its median to the baseline's."""
    round_ratios: tuple[float, ...]
    """To the baseline's run of the same round."""
    stage_shares: tuple[tuple[float, float, float], ...]
    """[stages] shares of busy, bubble and idle time, medians over the rounds."""
    preemptions: tuple[int, ...]
    phase_switches: tuple[int, ...]
    same_outputs: int
    """Requests whose tokens equal those of the baseline's first run, in every round."""
    foreign_cores: tuple[float, ...]
    """Cores that processes of others kept busy, by round."""


def summarise(
    runs: dict[System, list[Run]], baseline: System, requests: int
) -> tuple[Summary, ...]:
    """A summary per system.

    Args:
        runs: of each system, by round.
        baseline: one of the systems, to which the others' ratios are taken.
        requests: number of requests in a run.
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
                tuple(run.foreign_cores for run in rounds),
            )
        )
    return tuple(summaries)


def markdown_table(summaries: Sequence[Summary], baseline: System, requests: int) -> str:
    """A row per system."""
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
            stages or "not told",
            _range(each.preemptions),
            _range(each.phase_switches),
            f"{each.same_outputs} of {requests}",
            f"{min(each.foreign_cores):.2f}-{max(each.foreign_cores):.2f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _rates(rounds: list[Run]) -> tuple[float, ...]:
    return tuple(sum(map(len, run.outputs)) / run.seconds for run in rounds)


def _shares(rounds: list[Run]) -> tuple[tuple[float, float, float], ...]:
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
        return "not told"
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least}-{most}"
