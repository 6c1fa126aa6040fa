"""How busy the stages are, from the controller's clock and the durations that stages report.

The sums are counters that metrics take rates of, so they must never fall, and other threads read them at any moment.
"""

from __future__ import annotations


class StageClock:
    """Sums each stage's computing, and its waiting while steps were in flight.

    What a stage did not compute while steps were in flight is bubble; the rest of the time the pipeline was idle.
    """

    def __init__(self, stages: int) -> None:
        self.busy = (0.0,) * stages
        """[stages] seconds of computing."""
        self.bubble = (0.0,) * stages
        """[stages] seconds of waiting while steps were in flight, up to the last result. Exact when nothing is in
        flight; else it may hold what stages have computed of later steps."""
        self._active = 0.0
        self._since: float | None = None

    def started(self, now: float) -> None:
        """A step was issued."""
        if self._since is None:
            self._since = now

    def completed(self, busy: tuple[float, ...], in_flight: int, now: float) -> None:
        """A step came back and `in_flight` remain."""
        if self._since is not None:
            self._active += now - self._since
        self._since = now if in_flight else None
        self.busy = tuple(map(sum, zip(self.busy, busy, strict=True)))
        # A stage may report more than the time since the last result: what it computed before that.
        self.bubble = tuple(
            max(before, self._active - seconds)
            for before, seconds in zip(self.bubble, self.busy, strict=True)
        )
