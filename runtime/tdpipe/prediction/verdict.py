"""Which predictions to use from now on, and by what figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tdpipe.prediction.length_model import LengthModel
    from tdpipe.prediction.score import Score

Choice = Literal["candidate", "incumbent", "mean"]
_SUM = 128
"""Requests whose summed length is told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A trained model beside its rivals, by the same held-out requests."""

    choice: Choice
    candidate: LengthModel
    """What was trained."""
    scores: dict[Choice, Score]
    """Of each rival; `mean` predicts the same distribution for all."""
    trained: int
    """Rows that the candidate learned from."""
    judged: int
    """Rows by which all were judged."""

    def __str__(self) -> str:
        figures = ", ".join(
            f"{name} {score.pinball:.1f} tokens ({score.sum_error(_SUM):.1%})"
            for name, score in self.scores.items()
        )
        return (
            f"trained on {self.trained} requests; pinball loss over the next {self.judged} (error of the sum of "
            f"{_SUM}): {figures}; using the {self.choice}"
        )
