"""Moments at which decode phases end, as a list that can be replayed and changed: what an oracle searches.

A moment is the number of requests that have ended by then, so that moving one leaves the others where they are.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.policies.temporal import TemporalState

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tdpipe.scheduling.policies.temporal import TemporalPolicy
    from tdpipe.scheduling.policy import Plan, View
    from tdpipe.scheduling.sequence import Sequence

Points = tuple[int, ...]
"""Requests that have ended at each switch from decode to prefill, ascending."""
_FARTHEST = 24
"""Requests by which a switch is moved at once, at most."""


def never(view: View, fitting: list[Sequence], decoded: float) -> bool:  # noqa: ARG001
    """A switch rule for a policy whose phases are ended from outside."""
    return False


@dataclass(frozen=True, slots=True)
class ReplayState:
    """The policy's state and how many points lie behind."""

    inner: TemporalState
    passed: int = 0


class Replay:
    """Ends decode phases at given points.

    Args:
        inner: does all else; its own switch rule is `never`.
        points: when to switch.
        requests: all of the run, which are there from its start.
    """

    name = "temporal"

    def __init__(self, inner: TemporalPolicy, points: Points, requests: int) -> None:
        self._inner = inner
        self._points = points
        self._requests = requests

    def initial(self) -> ReplayState:
        """The policy's, before the first point."""
        return ReplayState(self._inner.initial())

    def plan(self, view: View, state: ReplayState) -> tuple[Plan | None, ReplayState]:
        """See `Policy.plan`."""
        inner, passed = state.inner, state.passed
        if inner.phase is Phase.DECODE:
            behind = bisect_right(self._points, view.changes - self._requests)
            if behind > passed:
                inner, passed = TemporalState(Phase.PREFILL), behind
        plan, inner = self._inner.plan(view, inner)
        return plan, ReplayState(inner, passed)


class Recording:
    """Notes when a policy ends its decode phases.

    Args:
        inner: decides.
        requests: all of the run, which are there from its start.
    """

    name = "temporal"

    def __init__(self, inner: TemporalPolicy, requests: int) -> None:
        self._inner = inner
        self._requests = requests
        self._noted: list[int] = []

    @property
    def points(self) -> Points:
        """Up to now."""
        return tuple(self._noted)

    def initial(self) -> TemporalState:
        """The policy's."""
        return self._inner.initial()

    def plan(self, view: View, state: TemporalState) -> tuple[Plan | None, TemporalState]:
        """See `Policy.plan`."""
        plan, after = self._inner.plan(view, state)
        if plan is not None and plan.phase is Phase.PREFILL and state.phase is Phase.DECODE:
            self._noted.append(view.changes - self._requests)
        return plan, after


def changed(points: Points, last: int, random: Random) -> Points:
    """The points with one of them moved, left out or put in, or all from one on moved; between 1 and `last`."""
    move = random.choice(("one", "one", "rest", "drop", "insert"))
    if not points or move == "insert":
        return tuple(sorted({*points, random.randint(1, last)}))
    chosen = random.randrange(len(points))
    if move == "drop":
        return points[:chosen] + points[chosen + 1 :]
    by = random.choice((-1, 1)) * random.randint(1, _FARTHEST)
    end = chosen + 1 if move == "one" else len(points)
    moved = {min(max(each + by, 1), last) for each in points[chosen:end]}
    return tuple(sorted({*points[:chosen], *moved, *points[end:]}))


def climb(
    start: Points,
    rate: Callable[[Points], float],
    last: int,
    evaluations: int,
    random: Random,
) -> tuple[Points, float]:
    """The best points found by changes that are kept when they make the rate higher.

    Args:
        start: where to begin.
        rate: to maximise.
        last: number of requests.
        evaluations: of `rate`.
        random: chooses the changes.
    """
    best, highest = start, rate(start)
    for _ in range(evaluations):
        points = changed(best, last, random)
        found = rate(points)
        if found > highest:
            best, highest = points, found
    return best, highest
