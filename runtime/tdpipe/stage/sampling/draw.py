"""Random draws that depend on a request's seed and the token's position alone.

A generator with state would tie a request's tokens to the order in which batches happen to be
computed; a hash of (seed, position) has no state to be moved, stolen or lost in a preemption.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tdpipe.core.step import FloatArray, IntArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seeds: NDArray[np.uint64], positions: IntArray) -> FloatArray:
    """[K] numbers in [0, 1), one for each seed and position.

    The position-th output of a SplitMix64 generator (Steele, Lea, Flood: Fast splittable
    pseudorandom number generators, 2014) whose state starts at the mixed seed.
    """
    state = _mix(seeds) + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Arrays wrap around in silence, which is what the mix is made of.
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def draw_tokens(logits: Tensor, numbers: Tensor) -> Tensor:
    """Invert each row's cumulative distribution, in the order of token ids.

    Args:
        logits: [K, V]; tokens at -inf are never drawn.
        numbers: [K] float64 in [0, 1).

    Returns:
        [K] int64 token ids.
    """
    # Sums over a vocabulary in float32 would be off by more than a rare token's probability.
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1]
    # Just below the total at most, so that some token's cumulative weight exceeds the target.
    target = torch.minimum(numbers * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)
    return found.clamp_(max=logits.shape[-1] - 1)
