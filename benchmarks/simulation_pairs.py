"""Throughput and bubbles of the engine's runs compared with those of their simulations."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.step_errors import STEP_HEADER, phase_errors, step_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.systems.run import StepTime
    from tdpipe.measurement.profile_fit import KindError

_HEADER = (
    "| policy | pair | engine, output tokens/s | simulated | simulated / engine "
    "| bubble % by stage, engine / simulated | phase switches | error of the profile's fit % "
    "| background load, cores: profile, run |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Side:
    """Quantities of the engine's run or of its simulation that are compared."""

    tokens_per_second: float
    """Output tokens per second over the whole run."""
    bubble: tuple[float, ...]
    """[stages] share of the run in which the stage did not compute."""
    phase_switches: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A run of the engine and its simulation."""

    policy: str
    engine: Side
    simulated: Side
    fit: dict[str, KindError]
    """Error of the profile's fit, by kind of step."""
    steps: tuple[StepTime, ...]
    """Steps that the engine executed."""
    background_cores: tuple[float, float]
    """Cores that unrelated processes kept busy while the profile was measured and during the run."""

    @property
    def ratio(self) -> float:
        """Ratio of simulated to measured throughput."""
        return self.simulated.tokens_per_second / self.engine.tokens_per_second


@dataclass(frozen=True, slots=True)
class Agreement:
    """Medians over the pairs of one policy."""

    ratio: float
    """Ratio of simulated to measured throughput."""
    bubble: tuple[float, ...]
    """[stages] simulated minus measured share."""


def agreement(pairs: Sequence[Pair]) -> Agreement:
    """Return the medians over the pairs."""
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
    """Yield the lines of the section: each pair, the medians, and the errors of the profiles by phase."""
    yield _HEADER
    for policy, measured in pairs.items():
        for number, pair in enumerate(measured):
            yield _row(policy, number + 1, pair)
    for policy, measured in pairs.items():
        found = agreement(measured)
        bubbles = " · ".join(f"{each * 100:+.1f}" for each in found.bubble)
        yield (
            f"\n`{policy}`, medians of {len(measured)} pairs: simulated / engine {found.ratio:.3f}; "
            f"bubble share, simulated minus measured, {bubbles} points by stage.\n"
        )
        yield STEP_HEADER
        for error in phase_errors([step for pair in measured for step in pair.steps]):
            yield step_row(error)


def _row(policy: str, number: int, pair: Pair) -> str:
    engine, simulated = pair.engine, pair.simulated
    bubbles = " · ".join(
        f"{measured * 100:.1f} / {predicted * 100:.1f}"
        for measured, predicted in zip(engine.bubble, simulated.bubble, strict=True)
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
        " · ".join(f"{each:.2f}" for each in pair.background_cores),
    )
    return f"| {' | '.join(cells)} |"
