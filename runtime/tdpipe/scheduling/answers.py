"""What the scheduler is told of the pipeline, and what it answers to the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdpipe.core.request import FinishReason


@dataclass(frozen=True, slots=True)
class Shape:
    """What the pipeline holds."""

    stages: int
    blocks: int
    block_size: int
    slots: int
    """Sequences that may hold KV at once."""
    max_context: int
    """Tokens of prompt and output together."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do until a request is added."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing to issue before this time or the next event, whichever comes first; `inf` waits for an event."""

    time: float


@dataclass(slots=True)
class Emission:
    """What a result brought: one token per entry, and the requests that ended with it."""

    request_ids: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """Index of each token in the step's output."""
    finished: dict[str, FinishReason] = field(default_factory=dict)
