"""A length predictor for runs whose output lengths are decided by the caller.

Measurements and tests compare the engine with a simulation or a reference, and both sides must plan with the same
lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.prediction.features import PromptFeatures


@dataclass(slots=True, eq=False)
class FixedLengths:
    """A `LengthPredictor` that returns the lengths it was given and learns nothing."""

    lengths: LengthDistribution | None = None
    """Prediction for every request from now on. Assign it before each `submit` to give each request its own."""
    version: int = 0
    """See `LengthPredictor.version`."""

    def predict(self, features: PromptFeatures) -> LengthDistribution:  # noqa: ARG002 - the protocol's argument
        """Return the current `lengths`, whatever the request is.

        Raises:
            LookupError: `lengths` is not set.
        """
        if self.lengths is None:
            raise LookupError(
                "FixedLengths.lengths is not set; assign it before submitting a request"
            )
        return self.lengths

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """Ignore the finished request."""

    def close(self) -> None:
        """Do nothing: no background work exists."""
