"""The share of outputs that outlive each length, when some were cut off before their end.

One that was cut off says only that its length is more (Kaplan and Meier, 1958).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalCurve:
    """A step function. Lengths are in whatever unit it was made from."""

    ends: FloatArray
    """[n] lengths at which outputs ended, ascending."""
    left: FloatArray
    """[n] share of all outputs that are longer; not 0 in the end if the longest ones were cut off."""

    def slices(self, count: int) -> FloatArray:
        """[count] mean lengths of equal shares of all outputs, ascending; infinite where most of one was cut off."""
        edges = np.arange(count + 1) / count
        ended = np.concatenate([[0.0], 1.0 - self.left])
        # What outputs of the lowest share p have in sum is piecewise linear in p.
        steps = np.cumsum(np.diff(ended) * self.ends)
        sums = np.interp(edges, ended, np.concatenate([[0.0], steps]))
        known = np.diff(np.minimum(edges, ended[-1]))
        means = np.diff(sums) / np.maximum(known, 1e-12)
        middles: FloatArray = (edges[1:] + edges[:-1]) / 2
        return np.where(middles <= ended[-1] + 1e-9, means, np.inf)

    def means_beyond(self, lengths: FloatArray) -> FloatArray:
        """[n] mean length of the outputs that are longer than each; twice the length where none is known to be."""
        died = np.append(1.0, self.left)[:-1] - self.left
        known = np.append(np.cumsum((died * self.ends)[::-1])[::-1], 0.0)
        at = np.searchsorted(self.ends, lengths, side="right")
        share = np.append(1.0, self.left)[at]
        lost = self.left[-1] if len(self.left) else 1.0
        last = np.maximum(self.ends[-1] if len(self.ends) else 0.0, lengths)
        means: FloatArray = (known[at] + lost * 2 * last) / np.maximum(share, 1e-12)
        return np.where(share > 1e-9, means, 2 * lengths)


def survival_curve(lengths: FloatArray, complete: BoolArray) -> SurvivalCurve:
    """The curve of outputs.

    Args:
        lengths: [n] how far each was generated.
        complete: [n] whether it ended by itself, or was cut off.
    """
    ends, died = np.unique(lengths[complete], return_counts=True)
    at_risk = len(lengths) - np.searchsorted(np.sort(lengths), ends, side="left")
    left: FloatArray = np.cumprod(1.0 - died / np.maximum(at_risk, 1), dtype=np.float64)
    return SurvivalCurve(ends, left)
