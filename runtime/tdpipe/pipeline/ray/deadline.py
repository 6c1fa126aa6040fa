"""The time limit over all waits of a start, which another thread can cancel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    import threading

_SLICE_SECONDS = 0.5


class Deadline:
    """A time limit of `seconds` from now.

    Args:
        seconds: duration in seconds.
        cancelled: event that ends the waits early.
    """

    def __init__(self, seconds: float, cancelled: threading.Event) -> None:
        self._end = time.monotonic() + seconds
        self._cancelled = cancelled

    def after(self, seconds: float) -> Deadline:
        """Return another time limit from now that is cancelled together with this one."""
        return Deadline(seconds, self._cancelled)

    def left(self) -> float:
        """Return the seconds that are left, at least 0.

        Raises:
            PipelineError: the start was cancelled.
        """
        if self._cancelled.is_set():
            raise PipelineError("the start was cancelled")
        return max(0.0, self._end - time.monotonic())

    def slice(self) -> float:
        """Return how many seconds a wait may last before it must ask again, because it cannot be cancelled itself.

        Raises:
            PipelineError: the start was cancelled.
        """
        return min(self.left(), _SLICE_SECONDS)

    def extend(self, seconds: float) -> None:
        """Allow so many more seconds."""
        self._end += seconds
