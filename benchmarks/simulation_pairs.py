"""Runs of the engine beside simulations of them, in the figures that are compared: throughput and bubbles."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.step_errors import STEP_HEADER, phase_errors, step_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.systems.job import StepTime
    from tdpipe.measurement.profile_fit import KindError

_HEADER = (
    "| policy | pair | engine, output tokens/s | simulated | simulated / engine "
    "| bubble % by stage, engine / simulated | phase switches | error of the profile's fit % "
    "| cores taken by others: profile, run |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared."""

    tokens_per_second: float
    """Output tokens, over the whole run."""
    bubble: tuple[float, ...]
    """[stages] share of the run in which it did not compute."""
    phase_switches: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A run and its simulation."""

    policy: str
    engine: Side
    simulated: Side
    fit: dict[str, KindError]
    """Of the profile, by kind of step."""
    steps: tuple[StepTime, ...]
    """The engine's."""
    foreign_cores: tuple[float, float]
    """Cores that processes of others kept busy, while the profile was measured and during the run."""

    @property
    def ratio(self) -> float:
        """Simulated to real throughput."""
        return self.simulated.tokens_per_second / self.engine.tokens_per_second


@dataclass(frozen=True, slots=True)
class Agreement:
    """Medians over pairs of one policy."""

    ratio: float
    """Simulated to real throughput."""
    bubble: tuple[float, ...]
    """[stages] simulated less real share."""


def agreement(pairs: Sequence[Pair]) -> Agreement:
    """The medians of pairs."""
    stages = range(len(pairs[0].engine.bubble))
    return Agreement(
        statistics.median(each.ratio for each in pairs),
        tuple(
            statistics.median(
                each.simulated.bubble[stage] - each.engine.bubble[stage] for each in pairs
            )
            for stage in stages
        ),
    )


def report(pairs: Mapping[str, Sequence[Pair]]) -> Iterator[str]:
    """Lines of the section: each pair, medians, and how well profiles foretold the steps."""
    yield _HEADER
    for policy, measured in pairs.items():
        for number, pair in enumerate(measured):
            yield _row(policy, number + 1, pair)
    for policy, measured in pairs.items():
        found = agreement(measured)
        bubbles = " · ".join(f"{each * 100:+.1f}" for each in found.bubble)
        yield (
            f"\n`{policy}`, medians of {len(measured)} pairs: simulated / engine {found.ratio:.3f}; "
            f"bubble share, simulated less real, {bubbles} points by stage.\n"
        )
        yield STEP_HEADER
        for error in phase_errors([step for pair in measured for step in pair.steps]):
            yield step_row(error)


def _row(policy: str, number: int, pair: Pair) -> str:
    engine, simulated = pair.engine, pair.simulated
    bubbles = " · ".join(
        f"{real * 100:.1f} / {told * 100:.1f}"
        for real, told in zip(engine.bubble, simulated.bubble, strict=True)
    )
    steps = sum(error.steps for error in pair.fit.values())
    mean = sum(error.mean * error.steps for error in pair.fit.values()) / steps
    cells = (
        policy,
        str(number),
        f"{engine.tokens_per_second:.0f}",
        f"{simulated.tokens_per_second:.0f}",
        f"{pair.ratio:.3f}",
        bubbles,
        f"{engine.phase_switches} / {simulated.phase_switches}",
        f"{mean * 100:.1f}",
        " · ".join(f"{each:.2f}" for each in pair.foreign_cores),
    )
    return f"| {' | '.join(cells)} |"
