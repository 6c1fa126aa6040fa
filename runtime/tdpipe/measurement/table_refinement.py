"""Refinement of a table of step times: the choice of further token counts to measure.

The time of matrix products is a staircase, so a line between two points may be wrong in between. On a CPU, times lie on
lines, where more points would only cost time. Points are compared by their shortest times, as other work of the machine
only makes steps longer and must not look like a step of the staircase.
"""

from __future__ import annotations

from itertools import pairwise

_MAX_RELATIVE_GAP = 0.1
"""Relative difference between the times of neighbours above which the middle between them is measured."""
_LINEARITY_TOLERANCE = 0.015
"""Relative deviation of a middle's time from the line between its neighbours below which it counts as on the line."""


class TableRefinement:
    """Measured times by number of tokens, of all stages."""

    def __init__(self) -> None:
        self.times: dict[int, list[tuple[float, ...]]] = {}
        """[stages] seconds of each measured step, by its number of tokens."""
        self._on_line: set[int] = set()
        """Middles whose times are on the line between their neighbours."""
        self._requested: list[int] = []

    def add(self, tokens: int, seconds: tuple[float, ...]) -> None:
        """Add a measured step.

        Args:
            tokens: The number of tokens of the step.
            seconds: [stages] seconds of computing.
        """
        self.times.setdefault(tokens, []).append(seconds)

    def middles(self) -> list[int]:
        """Return the token counts to measure next, ascending: the middles between neighbours with different times.

        A gap whose middle was measured and lies on the line is not refined further.
        """
        self._on_line |= {each for each in self._requested if self._is_on_line(each)}
        self._requested = []
        for low, high in pairwise(sorted(self.times)):
            if high - low < 2 or low in self._on_line or high in self._on_line:
                continue
            ends = zip(self._shortest(low), self._shortest(high), strict=True)
            if any(after / before - 1.0 > _MAX_RELATIVE_GAP for before, after in ends):
                self._requested.append((low + high) // 2)
        return list(self._requested)

    def _is_on_line(self, middle: int) -> bool:
        """Return whether the time at `middle` is on the line between its neighbours on every stage."""
        if middle not in self.times:  # it was not measured, since time was up
            return True
        low = max(each for each in self.times if each < middle)
        high = min(each for each in self.times if each > middle)
        share = (middle - low) / (high - low)
        ends = zip(self._shortest(low), self._shortest(high), strict=True)
        return all(
            abs(measured / (before + share * (after - before)) - 1.0) < _LINEARITY_TOLERANCE
            for measured, (before, after) in zip(self._shortest(middle), ends, strict=True)
        )

    def _shortest(self, tokens: int) -> list[float]:
        """Return [stages] seconds of the shortest step."""
        return [min(stage) for stage in zip(*self.times[tokens], strict=True)]
