"""Features of a request from which the length of its output is predicted.

Everything here is known before the first output token. A model reads the features as one row of numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.sampling import SamplingParams
from tdpipe.prediction.text_features import TEXT_FEATURE_NAMES, unknown_text_features

if TYPE_CHECKING:
    from tdpipe.prediction.tenant_history import TenantHistory
    from tdpipe.prediction.text_features import TextFeatures

FeatureVector = np.ndarray[tuple[int], np.dtype[np.float32]]
"""[len(FEATURE_NAMES)] one request's features; NaN marks a feature that is not known."""

_REQUEST_FEATURE_NAMES = (
    "prompt_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "tenant_outputs",
    "tenant_log_length",
)
FEATURE_NAMES = (*_REQUEST_FEATURE_NAMES, *TEXT_FEATURE_NAMES)
"""Names of the entries of a `FeatureVector`. A model only accepts the features it was trained on."""
_UNKNOWN_TEXT = unknown_text_features()
_GREEDY = SamplingParams()


@dataclass(frozen=True, slots=True, eq=False)
class PromptFeatures:
    """A request as a length predictor sees it."""

    prompt_tokens: int
    max_tokens: int
    """Maximum number of output tokens."""
    sampling: SamplingParams = _GREEDY
    can_stop: bool = True
    """Whether an end token or a stop string can end the output before `max_tokens`."""
    text: TextFeatures | None = None
    """Result of `extract_text_features`, or None if only token ids are known."""
    tenant: str | None = None
    """Name of the user or program that sent the request, if it is given."""


def feature_vector(features: PromptFeatures, tenants: TenantHistory) -> FeatureVector:
    """Build the row of numbers that a model reads.

    Args:
        features: Features of the request.
        tenants: History from which the tenant's earlier outputs are taken.
    """
    sampling = features.sampling
    outputs, log_length = tenants.statistics(features.tenant)
    vector = np.empty(len(FEATURE_NAMES), dtype=np.float32)
    vector[: len(_REQUEST_FEATURE_NAMES)] = (
        math.log(features.prompt_tokens),
        math.log(features.max_tokens),
        sampling.temperature,
        sampling.top_p,
        sampling.min_p,
        sampling.repetition_penalty,
        sampling.presence_penalty,
        sampling.frequency_penalty,
        outputs,
        log_length,
    )
    text = _UNKNOWN_TEXT if features.text is None else features.text
    vector[len(_REQUEST_FEATURE_NAMES) :] = text
    return vector
