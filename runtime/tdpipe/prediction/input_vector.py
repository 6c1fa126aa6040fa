"""A request's features as the row of numbers that a model reads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.prediction.text_numbers import TEXT_INPUTS, no_text

if TYPE_CHECKING:
    from tdpipe.prediction.features import PromptFeatures
    from tdpipe.prediction.tenants import TenantHistory

InputVector = np.ndarray[tuple[int], np.dtype[np.float32]]
"""[len(INPUTS)]; what is not known is not-a-number."""

_NUMBERS = (
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
INPUTS = (*_NUMBERS, *TEXT_INPUTS)
"""What each number is; a model fits only the inputs that it was trained on."""
_NO_TEXT = no_text()


def input_vector(features: PromptFeatures, tenants: TenantHistory) -> InputVector:
    """The row of a request, with what is known of its tenant by now."""
    sampling = features.sampling
    outputs, log_length = tenants.recall(features.tenant)
    vector = np.empty(len(INPUTS), dtype=np.float32)
    vector[: len(_NUMBERS)] = (
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
    vector[len(_NUMBERS) :] = _NO_TEXT if features.text is None else features.text
    return vector
