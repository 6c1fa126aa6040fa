"""One request's figures from arrival to end, which the metrics count and the log shows in one line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

_log = logging.getLogger(__name__)

Outcome = Literal["stop", "length", "aborted", "error"]


@dataclass(slots=True)
class RequestRecord:
    """Figures of one request. All times are seconds of the monotonic clock."""

    id: str
    endpoint: str
    prompt_tokens: int
    client_id: str | None = None
    """The id that the client gave the request."""
    output_tokens: int = 0
    outcome: Outcome | None = None
    """How the request ended; None while it runs."""
    arrived: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    last_token: float | None = None
    ended: float | None = None

    def mark_tokens(self) -> None:
        """Note that output tokens have arrived now."""
        self.last_token = time.monotonic()
        if self.first_token is None:
            self.first_token = self.last_token

    def end(self, outcome: Outcome) -> None:
        """Note that the request has ended now."""
        self.ended = time.monotonic()
        self.outcome = outcome

    @property
    def time_to_first_token(self) -> float | None:
        """TTFT in seconds; None before the first token."""
        return None if self.first_token is None else self.first_token - self.arrived

    @property
    def time_per_output_token(self) -> float | None:
        """TPOT in seconds: mean time between output tokens; None with fewer than two tokens."""
        if self.first_token is None or self.last_token is None or self.output_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.output_tokens - 1)

    @property
    def duration(self) -> float:
        """Seconds from arrival to the end, or to now while the request runs."""
        return (time.monotonic() if self.ended is None else self.ended) - self.arrived

    def log(self) -> None:
        """Log at INFO what the request cost and how it ended."""
        first = self.time_to_first_token
        _log.info(
            "%s%s %s: %d prompt tokens, %d output tokens, %s, first token after %s, %.3f s in all",
            self.id,
            "" if self.client_id is None else f" ({self.client_id})",
            self.endpoint,
            self.prompt_tokens,
            self.output_tokens,
            self.outcome,
            "none" if first is None else f"{first:.3f} s",
            self.duration,
        )


RecordSink = Callable[[RequestRecord], None]
"""Function that is called once per request, when the request has ended."""
