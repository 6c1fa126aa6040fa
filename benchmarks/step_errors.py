"""How far a profile is off the steps of a run, by what they were: where a simulation's error comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems.job import StepTime
    from tdpipe.core.step import Phase

STEP_HEADER = (
    "| steps | number | batch tokens, median | of the stages' time % | predicted to measured time, by stage "
    "| error of a step, mean % |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class PhaseError:
    """Steps of one phase."""

    phase: Phase
    steps: int
    tokens: float
    """Batch tokens of a step, the median."""
    share: float
    """Of all stages' computing time."""
    ratios: tuple[float, ...]
    """[stages] predicted to measured seconds of all steps together; above 1 the profile is too slow."""
    mean_error: float
    """Mean of a step's absolute error, relative to what it took, over all stages."""


def phase_errors(steps: Sequence[StepTime]) -> tuple[PhaseError, ...]:
    """An entry per phase that occurs, what took longest first."""
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
    """Its row under `STEP_HEADER`."""
    ratios = " · ".join(f"{each:.2f}" for each in error.ratios)
    return (
        f"| {error.phase} | {error.steps} | {error.tokens:.0f} | {error.share * 100:.0f} "
        f"| {ratios} | {error.mean_error * 100:.1f} |"
    )
