"""A generation request as the engine sees it: token ids, never text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tdpipe.core.sampling import SamplingParams

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution


class FinishReason(StrEnum):
    """Why a request ended; the values are OpenAI's where it has one."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate from which prompt."""

    id: str
    prompt: tuple[int, ...]
    """Token ids, at least one."""
    max_tokens: int
    """Output tokens at most, at least 1; prompt and output together fit the context."""
    lengths: LengthDistribution
    """How long the output is expected to be; outcomes above `max_tokens` count as `max_tokens`."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the output, such as EOS. The one that does is part of the output tokens."""
