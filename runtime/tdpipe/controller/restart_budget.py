"""The limit on restarts, so that stages which fail again and again end the process instead of keeping it busy."""

from __future__ import annotations

from collections import deque

_HOUR_SECONDS = 3600.0


class RestartBudget:
    """Counts restarts. All times are seconds of one clock, the caller's.

    Args:
        in_a_row: The maximum number of restarts without a served token between them.
        per_hour: The maximum number of restarts within an hour.
    """

    def __init__(self, in_a_row: int, per_hour: int) -> None:
        self._max_in_a_row = in_a_row
        self._per_hour = per_hour
        self._in_a_row = 0
        self._restarts: deque[float] = deque()

    @property
    def none(self) -> bool:
        """Whether no restart is allowed at all."""
        return self._max_in_a_row == 0

    def spend(self, now: float) -> str | None:
        """Count a restart at time `now`, or return why there must be none."""
        while self._restarts and self._restarts[0] <= now - _HOUR_SECONDS:
            self._restarts.popleft()
        if self._in_a_row >= self._max_in_a_row:
            return f"{self._in_a_row} restarts in a row served no token (recovery.max_restarts)"
        if len(self._restarts) >= self._per_hour:
            count = len(self._restarts)
            return f"{count} restarts within an hour (recovery.max_restarts_per_hour)"
        self._in_a_row += 1
        self._restarts.append(now)
        return None

    def served(self) -> None:
        """Note that a token was served."""
        self._in_a_row = 0
