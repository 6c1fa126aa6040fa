"""The number of a start of the pipeline, which distinguishes what belongs to it from what came before."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """One start of the pipeline. Later attempts compare as greater.

    Every attempt loads all stages again, because the stages of a broken pipeline cannot be connected a second time.
    """

    epoch: int
    """Generation of the workers, which whoever starts the workers counts."""
    number: int
    """Number of the start within the epoch, which the controller counts from 1."""

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"

    def next(self, epoch: int) -> Attempt:
        """Return the attempt after this one, with the workers of `epoch`."""
        return Attempt(epoch, self.number + 1 if epoch == self.epoch else 1)


FIRST_ATTEMPT = Attempt(1, 1)
"""The first start of a pipeline that no workers have to join."""
