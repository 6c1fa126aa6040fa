"""Share of outputs that are longer than each length, when some outputs were cut off before their end.

An output that was cut off only shows that its length is greater (estimator of Kaplan and Meier, 1958).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalCurve:
    """A step function of the length, in the unit of the lengths it was estimated from."""

    lengths: FloatArray
    """[n] lengths at which outputs ended, ascending."""
    longer: FloatArray
    """[n] share of all outputs that are longer; the last one is above 0 if the longest outputs were cut off."""

    def quantile_means(self, count: int) -> FloatArray:
        """Split all outputs by length into equal shares and return the mean length of each.

        Args:
            count: Number of shares.

        Returns:
            [count] mean lengths, ascending; infinite where most of a share was cut off.
        """
        edges = np.arange(count + 1) / count
        ended = np.concatenate([[0.0], 1.0 - self.longer])
        # The summed length of the shortest share p of the outputs is piecewise linear in p.
        steps = np.cumsum(np.diff(ended) * self.lengths)
        sums = np.interp(edges, ended, np.concatenate([[0.0], steps]))
        known = np.diff(np.minimum(edges, ended[-1]))
        means = np.diff(sums) / np.maximum(known, 1e-12)
        centers: FloatArray = (edges[1:] + edges[:-1]) / 2
        return np.where(centers <= ended[-1] + 1e-9, means, np.inf)

    def means_above(self, lengths: FloatArray) -> FloatArray:
        """Return the mean length of the outputs that are longer than each of `lengths`.

        Outputs that were cut off beyond the last known end count as twice as long. Where no output is known to be
        longer, the result is twice the given length.

        Args:
            lengths: [n] lengths.

        Returns:
            [n] mean lengths.
        """
        ending = np.append(1.0, self.longer)[:-1] - self.longer
        known = np.append(np.cumsum((ending * self.lengths)[::-1])[::-1], 0.0)
        index = np.searchsorted(self.lengths, lengths, side="right")
        share = np.append(1.0, self.longer)[index]
        cut_off = self.longer[-1] if len(self.longer) else 1.0
        last = np.maximum(self.lengths[-1] if len(self.lengths) else 0.0, lengths)
        means: FloatArray = (known[index] + cut_off * 2 * last) / np.maximum(share, 1e-12)
        return np.where(share > 1e-9, means, 2 * lengths)


def estimate_survival(lengths: FloatArray, complete: BoolArray) -> SurvivalCurve:
    """Estimate the survival curve of outputs.

    Args:
        lengths: [n] length up to which each output was generated.
        complete: [n] False where the output was cut off.
    """
    ends, ending = np.unique(lengths[complete], return_counts=True)
    at_risk = len(lengths) - np.searchsorted(np.sort(lengths), ends, side="left")
    longer: FloatArray = np.cumprod(1.0 - ending / np.maximum(at_risk, 1), dtype=np.float64)
    return SurvivalCurve(ends, longer)
