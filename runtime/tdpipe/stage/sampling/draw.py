"""Random draws that depend only on a request's seed and the token's position.

The state of a random generator would make a request's tokens depend on the order in which batches are computed, and
would have to survive preemptions. A hash of seed and position has no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tdpipe.core.step import FloatArray, IntArray

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def uniform_numbers(seeds: NDArray[np.uint64], positions: IntArray) -> FloatArray:
    """Return [K] numbers in [0, 1), one for each seed and position.

    Each number is the position-th output of a SplitMix64 generator (Steele, Lea, Flood: Fast splittable pseudorandom
    number generators, 2014) whose state starts at the mixed seed.
    """
    state = _mix(seeds) + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN_GAMMA
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # The multiplications must wrap around, which numpy does without a warning for arrays but not for scalars.
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def draw_tokens(logits: Tensor, numbers: Tensor) -> Tensor:
    """Draw a token per row by inverting its cumulative distribution, in the order of token ids.

    Args:
        logits: [K, V]; tokens whose logit is -inf are never drawn.
        numbers: [K] float64 in [0, 1).

    Returns:
        [K] int64 token ids.
    """
    # In float32 the error of a sum over the vocabulary exceeds the probability of a rare token.
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1]
    # The target stays below the total, so that the cumulative weight of some token exceeds it.
    target = torch.minimum(numbers * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)
    return found.clamp_(max=logits.shape[-1] - 1)
