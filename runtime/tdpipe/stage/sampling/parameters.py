"""The sampling parameters of each slot's request, as arrays, so that a batch's are looked up at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tdpipe.core.sampling import SamplingParams

NO_LOGPROBS = -1
"""Value of `ParameterTable.logprobs` for a request that asks for no log-probabilities."""
_SEED_RANGE = 2**64


class ParameterTable:
    """Sampling parameters with one entry per slot. The names are those of `SamplingParams`.

    Args:
        slots: number of slots.
    """

    def __init__(self, slots: int) -> None:
        self.temperature = np.zeros(slots)
        self.top_k = np.zeros(slots, np.int64)
        self.top_p = np.ones(slots)
        self.min_p = np.zeros(slots)
        self.repetition_penalty = np.ones(slots)
        self.presence_penalty = np.zeros(slots)
        self.frequency_penalty = np.zeros(slots)
        self.seed = np.zeros(slots, np.uint64)
        self.logprobs = np.full(slots, NO_LOGPROBS, np.int32)
        self.penalised: NDArray[np.bool_] = np.zeros(slots, np.bool_)
        """[slots] whether any penalty applies."""
        self.biased: NDArray[np.bool_] = np.zeros(slots, np.bool_)
        """[slots] whether the logits of any token are biased."""

    def store(self, slot: int, params: SamplingParams) -> None:
        """Store the parameters of a slot's new request."""
        self.temperature[slot] = params.temperature
        self.top_k[slot] = params.top_k
        self.top_p[slot] = params.top_p
        self.min_p[slot] = params.min_p
        self.repetition_penalty[slot] = params.repetition_penalty
        self.presence_penalty[slot] = params.presence_penalty
        self.frequency_penalty[slot] = params.frequency_penalty
        self.seed[slot] = params.seed % _SEED_RANGE
        self.logprobs[slot] = NO_LOGPROBS if params.logprobs is None else params.logprobs
        self.biased[slot] = bool(params.logit_bias)
        self.penalised[slot] = (
            params.repetition_penalty != 1
            or params.presence_penalty != 0
            or params.frequency_penalty != 0
        )
