"""Switch points, at which decode phases end, as a list that an oracle can replay and change.

A switch point is the number of requests that have ended by then, so that moving one does not move the others.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from benchmarks.ablated_policies import AblatedTemporal
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
"""Number of requests that have ended at each switch from decode to prefill, in ascending order."""
_MAX_MOVE = 24
"""Maximum number of requests by which one change moves a switch point."""


class Replay(AblatedTemporal):
    """The `temporal` policy whose decode phases end at given points instead of by its switch rule.

    Args:
        settings: Settings of the policy.
        points: Switch points.
        requests: Number of requests of the run, all of which arrive at its start.
        peaks: See `AblatedTemporal`.
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
    """A policy that records when another policy ends its decode phases.

    Args:
        inner: Policy that decides.
        requests: Number of requests of the run, all of which arrive at its start.
    """

    name = "temporal"

    def __init__(self, inner: TemporalPolicy, requests: int) -> None:
        self._inner = inner
        self._requests = requests
        self._recorded: list[int] = []

    @property
    def points(self) -> Points:
        """Switch points that have been recorded so far."""
        return tuple(self._recorded)

    def reset(self) -> None:
        """See `Policy.reset`."""
        self._inner.reset()

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        phase = self._inner.phase
        plan = self._inner.plan(view)
        if plan is not None and plan.phase is Phase.PREFILL and phase is Phase.DECODE:
            self._recorded.append(view.changes - self._requests)
        return plan


def mutate(points: Points, last: int, random: Random) -> Points:
    """Return the points with one of them moved, removed or added, or with all from one on moved.

    All points stay between 1 and `last`.
    """
    move = random.choice(("one", "one", "rest", "drop", "insert"))
    if not points or move == "insert":
        return tuple(sorted({*points, random.randint(1, last)}))
    chosen = random.randrange(len(points))
    if move == "drop":
        return points[:chosen] + points[chosen + 1 :]
    by = random.choice((-1, 1)) * random.randint(1, _MAX_MOVE)
    end = chosen + 1 if move == "one" else len(points)
    moved = {min(max(each + by, 1), last) for each in points[chosen:end]}
    return tuple(sorted({*points[:chosen], *moved, *points[end:]}))


def hill_climb(
    start: Points,
    rate: Callable[[Points], float],
    last: int,
    evaluations: int,
    random: Random,
) -> tuple[Points, float]:
    """Maximise a rate by random changes of the switch points (hill climbing).

    Args:
        start: Switch points at which the search starts.
        rate: Function to maximise.
        last: Number of requests.
        evaluations: Number of changes that are tried.
        random: Source of the changes.

    Returns:
        The best switch points found, and their rate.
    """
    best, highest = start, rate(start)
    for _ in range(evaluations):
        points = mutate(best, last, random)
        found = rate(points)
        if found > highest:
            best, highest = points, found
    return best, highest
