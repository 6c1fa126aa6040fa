"""A generation request as the engine sees it: token ids, never text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tdpipe.core.sampling import SamplingParams

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution


class FinishReason(StrEnum):
    """Reason for the end of a request. The values are those of OpenAI's API, where it has one."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, and what to generate from it."""

    id: str
    prompt: tuple[int, ...]
    """Token ids of the prompt, at least one."""
    max_tokens: int
    """Maximum number of output tokens, at least 1. Prompt and output together fit the context."""
    lengths: LengthDistribution
    """Expected length of the output; outcomes above `max_tokens` count as `max_tokens`."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the output, such as EOS. The token that ends it is part of the output."""
