"""Error of a profile by phase, which explains where the error of a simulation comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems.run import StepTime
    from tdpipe.core.step import Phase

STEP_HEADER = (
    "| phase | steps | batch tokens, median | share of stage time % | predicted / measured time, by stage "
    "| error of a step, mean % |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class PhaseError:
    """Error of the steps of one phase."""

    phase: Phase
    steps: int
    tokens: float
    """Median of the batch tokens of a step."""
    share: float
    """Share of the time in which stages computed."""
    ratios: tuple[float, ...]
    """[stages] ratio of predicted to measured seconds of all steps; above 1 the profile is too slow."""
    mean_error: float
    """Mean absolute error of a step relative to its measured time, over all stages."""


def phase_errors(steps: Sequence[StepTime]) -> tuple[PhaseError, ...]:
    """Return the error of each phase that occurs; the phase that took the longest comes first."""
    total = sum(sum(each.seconds) for each in steps)
    found = []
    for phase in {each.phase for each in steps}:
        of_phase = [each for each in steps if each.phase is phase]
        measured = np.array([each.seconds for each in of_phase])
        predicted = np.array([each.predicted for each in of_phase])
        found.append(
            PhaseError(
                phase,
                len(of_phase),
                float(np.median([each.tokens for each in of_phase])),
                float(measured.sum()) / total,
                tuple((predicted.sum(axis=0) / measured.sum(axis=0)).tolist()),
                float(np.abs(predicted / measured - 1.0).mean()),
            )
        )
    return tuple(sorted(found, key=lambda each: -each.share))


def step_row(error: PhaseError) -> str:
    """Return the row of the table that `STEP_HEADER` begins."""
    ratios = " · ".join(f"{each:.2f}" for each in error.ratios)
    return (
        f"| {error.phase} | {error.steps} | {error.tokens:.0f} | {error.share * 100:.0f} "
        f"| {ratios} | {error.mean_error * 100:.1f} |"
    )
