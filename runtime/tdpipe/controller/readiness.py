"""Whether the engine can take requests: the answer to probes.

A pipeline counts as working once it has generated a token, not because it has started. While a failed pipeline is
replaced, requests still queue for some time, so that clients see a pause and no error.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request

if TYPE_CHECKING:
    from tdpipe.core.errors import TDPipeError

PROBE = Request("readiness-probe", (0,), 1, LengthDistribution((1,)))
"""Request that is generated where no client's request shows that a pipeline works."""
_STILL_SECONDS = 60.0
"""Time without a turn of its loop after which the engine counts as stuck."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """State of the engine."""

    ready: bool
    """Whether requests are taken."""
    error: TDPipeError | None
    """The error that the engine has ended with, or None."""
    reason: str | None
    """Why requests are not taken, or None."""
    alive: bool
    """Whether the engine's loop turns, or has ended for a known reason."""


class Readiness:
    """What is known of the pipeline. The engine's thread writes, and any thread reads.

    Args:
        proven: Whether the first pipeline counts as working without a proof.
        patience: Seconds without a working pipeline after which no more requests are taken.
        queue: Number of unfinished requests from which no more are taken without a working pipeline.
    """

    def __init__(self, *, proven: bool = True, patience: float = 0.0, queue: int = 0) -> None:
        self._patience = patience
        self._queue = queue
        self._proof = threading.Event()
        self._was_proven = proven
        self._doubted_at = self._turned_at = time.monotonic()
        if proven:
            self._proof.set()

    @property
    def proven(self) -> bool:
        """Whether the present pipeline has generated a token."""
        return self._proof.is_set()

    def prove(self) -> None:
        """Note that the pipeline has generated a token, or that nobody need wait for one any more."""
        self._was_proven = True
        self._proof.set()

    def doubt(self, now: float) -> None:
        """Note that the pipeline has failed at time `now`."""
        self._doubted_at = now
        self._proof.clear()

    def turned(self, now: float) -> None:
        """Note that the engine's loop turned at time `now`."""
        self._turned_at = now

    def await_proof(self) -> None:
        """Wait for `prove`."""
        # Without a timeout, the wait would not be interrupted by signals on some platforms.
        while not self._proof.wait(1.0):
            pass

    def health(
        self, error: TDPipeError | None, unfinished: int, step: str, now: float
    ) -> EngineHealth:
        """Return the health at time `now`.

        Args:
            error: The error that the engine has ended with, if it has.
            unfinished: The number of requests that have not ended.
            step: The step that a restart is at.
            now: Seconds of the clock of `turned`.
        """
        if error is not None:
            return EngineHealth(ready=False, error=error, reason=str(error), alive=True)
        alive = now - self._turned_at < _STILL_SECONDS
        reason = None
        if not self.proven:
            reason = self._refusal(unfinished, now)
        if reason and self._was_proven and step:
            reason = f"{reason}; {step}"
        return EngineHealth(ready=reason is None, error=None, reason=reason, alive=alive)

    def _refusal(self, unfinished: int, now: float) -> str | None:
        if not self._was_proven:
            return "no token has been generated yet"
        seconds = now - self._doubted_at
        if seconds > self._patience:
            return f"the stages have been restarting for {seconds:.0f} s"
        if unfinished >= self._queue:
            return f"the stages restart, and {unfinished} requests wait already"
        return None
