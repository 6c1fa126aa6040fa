from __future__ import annotations

import numpy as np

from tdpipe.prediction.features import FEATURE_NAMES
from tdpipe.prediction.reservoir import Reservoir

_VECTOR = np.zeros(len(FEATURE_NAMES), dtype=np.float32)


def filled(count: int, capacity: int) -> Reservoir:
    """A reservoir to which rows of lengths 1 to `count` were added."""
    reservoir = Reservoir(capacity)
    for length in range(1, count + 1):
        reservoir.add(_VECTOR, length, 2 * length, complete=length % 2 == 0)
    return reservoir


def test_rows_are_complete_and_oldest_first() -> None:
    rows = filled(count=1000, capacity=100).rows()
    assert len(rows) == 100
    assert (np.diff(rows.lengths) > 0).all()
    assert (rows.max_tokens == 2 * rows.lengths).all()
    assert (rows.complete == (rows.lengths % 2 == 0)).all()


def test_newer_rows_are_kept_more_often_but_older_ones_remain() -> None:
    lengths = filled(count=3000, capacity=1000).rows().lengths
    kept = [int(((lengths > start) & (lengths <= start + 1000)).sum()) for start in (0, 1000, 2000)]
    assert sum(kept) == 1000
    assert kept[2] > 1.8 * kept[1] > 1.8 * kept[0] > 0


def test_returned_rows_do_not_change() -> None:
    reservoir = filled(count=50, capacity=50)
    rows = reservoir.rows()
    before = rows.lengths.copy()
    reservoir.add(_VECTOR, 999, 999, complete=True)
    assert (rows.lengths == before).all()
