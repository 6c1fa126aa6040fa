"""What the scheduler answers to the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdpipe.core.request import FinishReason


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do until a request is added."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing to issue before this time or the next event, whichever comes first."""

    time: float
    """Seconds of the caller's clock; `inf` waits for a result, a new request or the end of one."""


@dataclass(slots=True)
class Emission:
    """What a result brought: one token per entry, and the requests that ended with it."""

    request_ids: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """Index of each token in the step's output."""
    finished: dict[str, FinishReason] = field(default_factory=dict)
