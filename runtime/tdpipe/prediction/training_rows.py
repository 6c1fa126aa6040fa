"""Finished requests as arrays, on which a model is trained and evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import BoolArray
    from tdpipe.prediction.tree_ensemble import FloatRows

LengthArray = np.ndarray[tuple[int], np.dtype[np.int64]]
NO_MAX_TOKENS = 2**31 - 1
"""Value of `max_tokens` for a request that sets no limit."""


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Finished requests, oldest first."""

    vectors: FloatRows
    """[n, features] feature vectors, see `feature_vector`."""
    lengths: LengthArray
    """[n] number of tokens generated, each at least 1."""
    complete: BoolArray
    """[n] False where `max_tokens` or the client cut the output off."""
    max_tokens: LengthArray
    """[n] maximum number of output tokens of each request."""

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, rows: LengthArray | BoolArray | slice) -> TrainingRows:
        """Return some of the rows, chosen as in numpy indexing."""
        return TrainingRows(
            self.vectors[rows], self.lengths[rows], self.complete[rows], self.max_tokens[rows]
        )

    @property
    def length_known(self) -> BoolArray:
        """[n] whether the length up to `max_tokens` is known, which is False if the client cut the output off."""
        return self.complete | (self.lengths >= self.max_tokens)
