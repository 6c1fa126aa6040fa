"""Finished requests as arrays: what a model is trained on and judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import BoolArray
    from tdpipe.prediction.tree_ensemble import FloatRows

LengthArray = np.ndarray[tuple[int], np.dtype[np.int64]]
NO_BOUND = 2**31 - 1
"""`max_tokens` of a request that names none."""


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Requests that ended, oldest first."""

    vectors: FloatRows
    """[n, inputs], see `input_vector`."""
    lengths: LengthArray
    """[n] tokens generated, at least 1."""
    complete: BoolArray
    """[n] whether an output ended by itself, or was cut off by its bound or its client."""
    bounds: LengthArray
    """[n] `max_tokens`."""

    def __len__(self) -> int:
        return len(self.lengths)

    def at(self, chosen: LengthArray | BoolArray | slice) -> TrainingRows:
        """Some of the rows, by index."""
        return TrainingRows(
            self.vectors[chosen], self.lengths[chosen], self.complete[chosen], self.bounds[chosen]
        )

    @property
    def known(self) -> BoolArray:
        """[n] whether the length within the bound is known: all but those that a client cut off."""
        return self.complete | (self.lengths >= self.bounds)
