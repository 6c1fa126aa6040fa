"""A bounded set of finished requests in which older ones become rarer.

Each new row replaces a random one, so the probability that a row is still present halves with every 0.7 capacities of
newer rows. The set stays varied enough to train on, and no request is kept forever.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.prediction.features import FEATURE_NAMES
from tdpipe.prediction.training_rows import TrainingRows

if TYPE_CHECKING:
    from tdpipe.prediction.features import FeatureVector


class Reservoir:
    """Rows to train on.

    Args:
        capacity: Maximum number of rows; each takes about 700 bytes.
        seed: Seed for the choice of the rows that are replaced.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self._rows = TrainingRows(
            np.zeros((capacity, len(FEATURE_NAMES)), dtype=np.float32),
            np.zeros(capacity, dtype=np.int64),
            np.zeros(capacity, dtype=np.bool_),
            np.zeros(capacity, dtype=np.int64),
        )
        self._order = np.zeros(capacity, dtype=np.int64)
        self._random = Random(seed)
        self.added = 0
        """Number of rows added so far, including those that were replaced."""

    def add(self, vector: FeatureVector, length: int, max_tokens: int, *, complete: bool) -> None:
        """Add one row; see `TrainingRows` for its values."""
        capacity = len(self._rows)
        index = self.added if self.added < capacity else self._random.randrange(capacity)
        self._rows.vectors[index] = vector
        self._rows.lengths[index], self._rows.max_tokens[index] = length, max_tokens
        self._rows.complete[index] = complete
        self._order[index] = self.added
        self.added += 1

    def rows(self) -> TrainingRows:
        """Return a copy of the rows, oldest first."""
        count = min(self.added, len(self._rows))
        return self._rows.select(np.argsort(self._order[:count]))
