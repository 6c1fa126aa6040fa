"""Penalties for tokens that a sequence already has.

The tokens are counted as the sequence grows. A preempted sequence resumes with all the tokens that it has, so it is
penalised as if it had never left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tdpipe.core.step import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Penalties:
    """The penalties of K rows, each as [K] float64. Their meaning is that of `SamplingParams`."""

    repetition: FloatArray
    presence: FloatArray
    frequency: FloatArray


class TokenCounts:
    """The distinct tokens of one sequence, and how often each is in its output."""

    def __init__(self) -> None:
        self.tokens = np.zeros(0, np.int64)
        """Distinct tokens of prompt and output in ascending order."""
        self.output_counts = np.zeros(0, np.int64)
        """Number of times that each of these tokens is in the output."""
        self._counted = 0

    def update(self, sequence: IntArray, prompt_length: int) -> None:
        """Count the tokens that were appended to `sequence` since the last call.

        Args:
            sequence: all token ids of the sequence.
            prompt_length: number of these that are the prompt.
        """
        first = self._counted
        self._counted = len(sequence)
        if first == 0:
            self.tokens, places = np.unique(sequence.astype(np.int64), return_inverse=True)
            self.output_counts = np.bincount(places[prompt_length:], minlength=len(self.tokens))
            return
        for position in range(first, len(sequence)):
            token = sequence[position]
            place = int(self.tokens.searchsorted(token))
            if place == len(self.tokens) or self.tokens[place] != token:
                self.tokens = np.insert(self.tokens, place, token)
                self.output_counts = np.insert(self.output_counts, place, 0)
            self.output_counts[place] += position >= prompt_length


def apply_penalties(
    logits: Tensor, rows: Sequence[int], counts: Sequence[TokenCounts], penalties: Penalties
) -> None:
    """Apply the penalties of `rows` to `logits` in place.

    The logit of a token that is in the prompt or the output is divided by the repetition penalty if it is positive and
    multiplied by it if it is negative (Keskar et al., CTRL, 2019). Then a token of the output loses the frequency
    penalty once per occurrence and the presence penalty once.

    Args:
        logits: [batch, V] logits of the whole batch.
        rows: the K rows to penalise.
        counts: tokens of each row's sequence.
        penalties: penalties of each row.
    """
    # A sequence has few of the vocabulary's tokens, so only their logits are read and written.
    index = np.repeat(np.arange(len(counts)), [len(each.tokens) for each in counts])
    token = np.concatenate([each.tokens for each in counts])
    output = np.concatenate([each.output_counts for each in counts])
    row = np.asarray(rows)[index]

    def upload(array: FloatArray) -> Tensor:
        return torch.from_numpy(array).to(logits.device, logits.dtype)

    repetition = upload(penalties.repetition[index])
    subtracted = upload(
        output * penalties.frequency[index] + (output > 0) * penalties.presence[index]
    )
    where = (torch.from_numpy(row).to(logits.device), torch.from_numpy(token).to(logits.device))
    values = logits[where]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[where] = values - subtracted
