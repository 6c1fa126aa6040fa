"""What is known of a request before its first token, as far as it may tell how long the output will be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.sampling import SamplingParams

if TYPE_CHECKING:
    from tdpipe.prediction.text_numbers import TextNumbers

_GREEDY = SamplingParams()


@dataclass(frozen=True, slots=True, eq=False)
class PromptFeatures:
    """A request as a length predictor sees it."""

    prompt_tokens: int
    max_tokens: int
    """Output tokens at most."""
    sampling: SamplingParams = _GREEDY
    can_stop: bool = True
    """Whether anything but `max_tokens` can end the output: an end token or a stop string."""
    text: TextNumbers | None = None
    """Of `describe_text`; None where there are only token ids."""
    tenant: str | None = None
    """Who asks, if the request says."""
