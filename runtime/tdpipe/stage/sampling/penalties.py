"""Penalties for tokens that a sequence already has.

They are computed from the sequence's token ids at each draw instead of from counts that are kept, so a preempted
sequence that resumes in another slot is penalised as if it had never left.
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


def apply_penalties(
    logits: Tensor,
    rows: Sequence[int],
    histories: Sequence[IntArray],
    prompt_lengths: Sequence[int],
    penalties: Penalties,
) -> None:
    """Apply the penalties of `rows` to `logits` in place.

    The logit of a token that is in the prompt or the output is divided by the repetition penalty if it is positive and
    multiplied by it if it is negative (Keskar et al., CTRL, 2019). Then a token of the output loses the frequency
    penalty once per occurrence and the presence penalty once.

    Args:
        logits: [batch, V] logits of the whole batch.
        rows: the K rows to penalise.
        histories: token ids of each row's prompt and output.
        prompt_lengths: number of each row's tokens that are the prompt.
        penalties: penalties of each row.
    """
    size = logits.shape[-1]
    keys = np.concatenate(
        [index * size + tokens.astype(np.int64) for index, tokens in enumerate(histories)]
    )
    generated = np.concatenate(
        [
            np.arange(len(tokens)) >= length
            for tokens, length in zip(histories, prompt_lengths, strict=True)
        ]
    )
    # A sequence has few of the vocabulary's tokens, so only their logits are read and written.
    found, place = np.unique(keys, return_inverse=True)
    counts = np.bincount(place, weights=generated)
    index, token = np.divmod(found, size)
    row = np.asarray(rows)[index]

    def upload(array: FloatArray) -> Tensor:
        return torch.from_numpy(array).to(logits.device, logits.dtype)

    repetition = upload(penalties.repetition[index])
    subtracted = upload(
        counts * penalties.frequency[index] + (counts > 0) * penalties.presence[index]
    )
    where = (torch.from_numpy(row).to(logits.device), torch.from_numpy(token).to(logits.device))
    values = logits[where]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[where] = values - subtracted
