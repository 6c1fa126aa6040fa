"""What the scheduler is told of the pipeline, and what it answers to the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdpipe.core.errors import RequestError

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

    def check(self, prompt_tokens: int, max_tokens: int) -> None:
        """Refuse a request that could not run even alone.

        Raises:
            RequestError: it is empty, or longer than context or KV cache.
        """
        longest = prompt_tokens + max_tokens
        if prompt_tokens < 1 or max_tokens < 1:
            raise RequestError("a request needs a prompt token and max_tokens of at least 1")
        if longest > self.max_context:
            raise RequestError(
                f"prompt ({prompt_tokens} tokens) and max_tokens ({max_tokens}) exceed the context "
                f"of {self.max_context} tokens; shorten one of them",
                "max_tokens",
            )
        if longest > self.blocks * self.block_size:
            raise RequestError(
                f"prompt and max_tokens need {longest} tokens of KV cache, which holds "
                f"{self.blocks * self.block_size}; lower max_tokens or raise cache.memory",
                "max_tokens",
            )


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
