"""Moments at which decode phases end, as a list that can be replayed and changed: what an oracle searches.

A moment is the number of requests that have ended by then, so that moving one leaves the others where they are.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from benchmarks.ablated import AblatedTemporal
from tdpipe.core.step import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tdpipe.core.settings import SchedulerSettings
    from tdpipe.core.step import FloatArray
    from tdpipe.scheduling.forecast import Demands
    from tdpipe.scheduling.policies.temporal import TemporalPolicy
    from tdpipe.scheduling.policy import Plan
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.view import View

Points = tuple[int, ...]
"""Requests that have ended at each switch from decode to prefill, ascending."""
_FARTHEST = 24
"""Requests by which a switch is moved at once, at most."""


class Replay(AblatedTemporal):
    """The `temporal` policy whose decode phases end at given points instead of by its switch rule.

    Args:
        settings: settings of the policy.
        points: when to switch.
        requests: number of requests of the run, all of which are there from its start.
        peaks: see `AblatedTemporal`.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        points: Points,
        requests: int,
        peaks: Callable[[Demands], FloatArray] | None = None,
    ) -> None:
        margin, hysteresis = settings.forecast_margin, settings.switch_hysteresis
        super().__init__(settings.token_budget, margin, hysteresis, peaks=peaks)
        self._points = points
        self._requests = requests
        self._passed = 0

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        if self.phase is Phase.DECODE:
            passed = bisect_right(self._points, view.changes - self._requests)
            if passed > self._passed:
                self._passed = passed
                self.reset()
        return super().plan(view)

    def _worth_prefilling(self, view: View, fitting: list[Sequence]) -> bool:  # noqa: ARG002
        return False


class Recording:
    """Notes when a policy ends its decode phases.

    Args:
        inner: policy that decides.
        requests: number of requests of the run, all of which are there from its start.
    """

    name = "temporal"

    def __init__(self, inner: TemporalPolicy, requests: int) -> None:
        self._inner = inner
        self._requests = requests
        self._noted: list[int] = []

    @property
    def points(self) -> Points:
        """Points at which decode phases have ended so far."""
        return tuple(self._noted)

    def reset(self) -> None:
        """See `Policy.reset`."""
        self._inner.reset()

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        phase = self._inner.phase
        plan = self._inner.plan(view)
        if plan is not None and plan.phase is Phase.PREFILL and phase is Phase.DECODE:
            self._noted.append(view.changes - self._requests)
        return plan


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
