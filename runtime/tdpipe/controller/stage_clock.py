"""How busy the stages are, from the controller's clock and the durations that stages report."""

from __future__ import annotations


class StageClock:
    """Sums each stage's computing, and the time in which steps were in flight.

    What a stage did not compute while steps were in flight is bubble; the rest of the time the pipeline was idle.
    """

    def __init__(self, stages: int) -> None:
        self._busy = [0.0] * stages
        self._active = 0.0
        self._since: float | None = None

    def started(self, now: float) -> None:
        """A step was issued."""
        if self._since is None:
            self._since = now

    def completed(self, busy: tuple[float, ...], in_flight: int, now: float) -> None:
        """A step came back and `in_flight` remain."""
        for stage, seconds in enumerate(busy):
            self._busy[stage] += seconds
        if in_flight == 0 and self._since is not None:
            self._active += now - self._since
            self._since = None

    @property
    def busy(self) -> tuple[float, ...]:
        """[stages] seconds of computing."""
        return tuple(self._busy)

    def bubble(self, now: float) -> tuple[float, ...]:
        """[stages] seconds of waiting while steps were in flight."""
        running = 0.0 if self._since is None else now - self._since
        return tuple(max(0.0, self._active + running - busy) for busy in self._busy)
