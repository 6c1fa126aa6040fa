"""Where a table of times needs another point.

Matrix products go in steps, so a line between two points may be far off in between; but on a CPU times do lie on
lines, where more points would only take time. Points are compared by their shortest times: whatever else a machine does
makes steps longer only, and a step of the table must not be seen where there is none.
"""

from __future__ import annotations

from itertools import pairwise

_APART = 0.1
"""Neighbours of which the larger takes longer by more are refined."""
_STRAIGHT = 0.015
"""But not where the time in the middle is so near to the line between theirs."""


class TableRefinement:
    """Times by tokens, of all stages at once."""

    def __init__(self) -> None:
        self.times: dict[int, list[tuple[float, ...]]] = {}
        """[stages] seconds of each measured step, by its tokens."""
        self._straight: set[int] = set()
        self._asked: list[int] = []

    def add(self, tokens: int, seconds: tuple[float, ...]) -> None:
        """Take over what a step took on each stage."""
        self.times.setdefault(tokens, []).append(seconds)

    def middles(self) -> list[int]:
        """Token counts to measure next, ascending: between neighbours whose times are far apart.

        Once the middle of such a gap was measured and lies on its line, the gap is left alone.
        """
        self._straight |= {each for each in self._asked if self._is_straight(each)}
        self._asked = []
        for low, high in pairwise(sorted(self.times)):
            if high - low < 2 or low in self._straight or high in self._straight:
                continue
            ends = zip(self._shortest(low), self._shortest(high), strict=True)
            if any(after / before - 1.0 > _APART for before, after in ends):
                self._asked.append((low + high) // 2)
        return list(self._asked)

    def _is_straight(self, middle: int) -> bool:
        """Whether the time at `middle` lies on the line between its neighbours, on every stage."""
        if middle not in self.times:  # time was up
            return True
        low = max(each for each in self.times if each < middle)
        high = min(each for each in self.times if each > middle)
        share = (middle - low) / (high - low)
        ends = zip(self._shortest(low), self._shortest(high), strict=True)
        return all(
            abs(seen / (before + share * (after - before)) - 1.0) < _STRAIGHT
            for seen, (before, after) in zip(self._shortest(middle), ends, strict=True)
        )

    def _shortest(self, tokens: int) -> list[float]:
        """[stages] seconds."""
        return [min(stage) for stage in zip(*self.times[tokens], strict=True)]
