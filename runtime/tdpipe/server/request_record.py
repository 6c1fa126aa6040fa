"""One request's figures, from arrival to end: what metrics count and the log tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["stop", "length", "aborted", "error"]


@dataclass(slots=True)
class RequestRecord:
    """Times are seconds of a monotonic clock."""

    id: str
    endpoint: str
    prompt_tokens: int
    output_tokens: int = 0
    outcome: Outcome | None = None
    arrived: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    last_token: float | None = None
    ended: float | None = None

    def tokens_came(self) -> None:
        """Take the time."""
        self.last_token = time.monotonic()
        if self.first_token is None:
            self.first_token = self.last_token

    @property
    def time_to_first_token(self) -> float | None:
        """TTFT in seconds; None before the first token."""
        return None if self.first_token is None else self.first_token - self.arrived

    @property
    def time_per_output_token(self) -> float | None:
        """TPOT in seconds: mean gap between output tokens; None below two of them."""
        if self.first_token is None or self.last_token is None or self.output_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.output_tokens - 1)

    @property
    def duration(self) -> float:
        """Seconds from arrival to the end, or until now."""
        return (time.monotonic() if self.ended is None else self.ended) - self.arrived

    def end(self, outcome: Outcome) -> None:
        """Take the time and the outcome."""
        self.ended = time.monotonic()
        self.outcome = outcome


RecordSink = Callable[[RequestRecord], None]
"""Called once per request, when it has its outcome."""
