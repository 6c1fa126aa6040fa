"""A bounded memory of finished requests that fades instead of ending at a fixed age.

Each new row takes the place of a random one, so a row's chance to be there still halves with every 0.7 capacities of
newer ones: enough variety to learn from, and no request is remembered for ever.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.prediction.input_vector import INPUTS
from tdpipe.prediction.training_rows import TrainingRows

if TYPE_CHECKING:
    from tdpipe.prediction.input_vector import InputVector


class Reservoir:
    """Rows to train on.

    Args:
        capacity: rows at most; each takes about 700 bytes.
        seed: of which rows are replaced.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self._rows = TrainingRows(
            np.zeros((capacity, len(INPUTS)), dtype=np.float32),
            np.zeros(capacity, dtype=np.int64),
            np.zeros(capacity, dtype=np.bool_),
            np.zeros(capacity, dtype=np.int64),
        )
        self._numbers = np.zeros(capacity, dtype=np.int64)
        self._random = Random(seed)
        self.seen = 0
        """Rows that were ever added."""

    def add(self, vector: InputVector, length: int, bound: int, *, complete: bool) -> None:
        """One more row: an output's tokens, its `max_tokens`, and whether it ended by itself."""
        capacity = len(self._rows)
        at = self.seen if self.seen < capacity else self._random.randrange(capacity)
        self._rows.vectors[at] = vector
        self._rows.lengths[at], self._rows.bounds[at] = length, bound
        self._rows.complete[at] = complete
        self._numbers[at] = self.seen
        self.seen += 1

    def rows(self) -> TrainingRows:
        """A copy of the rows, oldest first."""
        held = min(self.seen, len(self._rows))
        return self._rows.at(np.argsort(self._numbers[:held]))
